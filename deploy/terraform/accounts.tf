# Three accounts, one a kind of work, each with the least that its work needs. No account has a key file.
resource "google_service_account" "parcours" {
  for_each = {
    training = "Trains: reads and writes run directories"
    pipeline = "Builds journeys and scores: BigQuery and Dataflow"
    serving  = "Answers: reads models"
  }
  account_id   = "parcours-${each.key}"
  display_name = each.value
}

locals {
  training = "serviceAccount:${google_service_account.parcours["training"].email}"
  pipeline = "serviceAccount:${google_service_account.parcours["pipeline"].email}"
  serving  = "serviceAccount:${google_service_account.parcours["serving"].email}"

  # In the project: what no single resource can be granted for. `why` is the reason that each needs its role.
  project_roles = {
    training_logs    = { member = local.training, role = "roles/logging.logWriter", why = "a job's lines" }
    training_metrics = { member = local.training, role = "roles/monitoring.metricWriter", why = "step time and input wait go to Cloud Monitoring" }
    training_board   = { member = local.training, role = "roles/aiplatform.user", why = "its scalars go to the managed TensorBoard; settings and metrics to an experiment, where one is named" }
    serving_logs     = { member = local.serving, role = "roles/logging.logWriter", why = "a line a request" }
    pipeline_jobs    = { member = local.pipeline, role = "roles/bigquery.jobUser", why = "runs journeys.sql" }
    pipeline_streams = { member = local.pipeline, role = "roles/bigquery.readSessionUser", why = "reads by the Storage Read API" }
    pipeline_worker  = { member = local.pipeline, role = "roles/dataflow.worker", why = "its machines are Dataflow's workers" }
    analysts_jobs    = { member = var.analysts, role = "roles/aiplatform.user", why = "submits jobs, registers and deploys models" }
    analysts_flow    = { member = var.analysts, role = "roles/dataflow.developer", why = "starts and watches pipelines" }
    analysts_logs    = { member = var.analysts, role = "roles/logging.viewer", why = "deploy.submit follows a job's lines" }
  }

  # Of the bucket of runs.
  bucket_roles = {
    training = { member = local.training, role = "roles/storage.objectUser", why = "reads records, writes models and reports" }
    pipeline = { member = local.pipeline, role = "roles/storage.objectUser", why = "writes journeys and records" }
    serving  = { member = local.serving, role = "roles/storage.objectViewer", why = "loads a model, and changes nothing" }
    analysts = { member = var.analysts, role = "roles/storage.objectUser", why = "uploads packages, reads reports" }
  }

  # Of the bucket of models.
  model_roles = {
    training = { member = local.training, role = "roles/storage.objectViewer", why = "a double run reads the incumbent" }
    serving  = { member = local.serving, role = "roles/storage.objectViewer", why = "loads a model" }
    pipeline = { member = local.pipeline, role = "roles/storage.objectUser", why = "puts a promoted model there" }
  }

  # Who may act as which account: without this, nobody can start a job that runs as it.
  users = {
    training = google_service_account.parcours["training"].name
    pipeline = google_service_account.parcours["pipeline"].name
    serving  = google_service_account.parcours["serving"].name
  }
}

resource "google_project_iam_member" "parcours" {
  for_each = local.project_roles
  project  = var.project
  role     = each.value.role
  member   = each.value.member
}

resource "google_storage_bucket_iam_member" "runs" {
  for_each = local.bucket_roles
  bucket   = google_storage_bucket.runs.name
  role     = each.value.role
  member   = each.value.member
}

resource "google_storage_bucket_iam_member" "models" {
  for_each = local.model_roles
  bucket   = google_storage_bucket.models.name
  role     = each.value.role
  member   = each.value.member
}

# Scores are written here; events are read from where they are, by a grant of their owner, on their dataset alone.
resource "google_bigquery_dataset_iam_member" "scores" {
  dataset_id = google_bigquery_dataset.parcours.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = local.pipeline
}

resource "google_bigquery_dataset_iam_member" "temporary" {
  dataset_id = google_bigquery_dataset.temporary.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = local.pipeline
}

resource "google_artifact_registry_repository_iam_member" "images" {
  for_each   = { training = local.training, pipeline = local.pipeline, serving = local.serving }
  repository = google_artifact_registry_repository.parcours.name
  location   = var.region
  role       = "roles/artifactregistry.reader"
  member     = each.value
}

resource "google_service_account_iam_member" "analysts" {
  for_each           = local.users
  service_account_id = each.value
  role               = "roles/iam.serviceAccountUser"
  member             = var.analysts
}
