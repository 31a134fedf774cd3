# Three accounts, one a kind of work, each with the least that its work needs. No account has a key file.
resource "google_service_account" "parcours" {
  for_each = {
    training = "Trains: reads and writes run directories"
    pipeline = "Builds journeys and scores: BigQuery and Dataflow"
    serving  = "Answers: reads models"
  }
  account_id   = "parcours-${each.key}"
  display_name = each.value

  depends_on = [google_project_service.needed]
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
    pipeline_flow    = { member = local.pipeline, role = "roles/dataflow.developer", why = "a schedule's step starts Dataflow's job and follows it" }
    pipeline_vertex  = { member = local.pipeline, role = "roles/aiplatform.user", why = "Vertex AI runs a schedule's pipeline as it" }
    analysts_jobs    = { member = var.analysts, role = "roles/aiplatform.user", why = "submits jobs, registers and deploys models" }
    analysts_flow    = { member = var.analysts, role = "roles/dataflow.developer", why = "starts and watches pipelines" }
    analysts_queries = { member = var.analysts, role = "roles/bigquery.jobUser", why = "deploy.on_dataflow runs journeys.sql from a laptop" }
    analysts_streams = { member = var.analysts, role = "roles/bigquery.readSessionUser", why = "and reads the rows set aside by the Storage Read API" }
    analysts_logs    = { member = var.analysts, role = "roles/logging.viewer", why = "deploy.submit follows a job's lines" }

    # Google's own agents, made in keys.tf: each has what Google gives it where it makes it itself.
    agent_vertex   = { member = google_project_service_identity.agents["aiplatform"].member, role = "roles/aiplatform.serviceAgent", why = "starts jobs as the accounts above" }
    agent_images   = { member = google_project_service_identity.agents["artifactregistry"].member, role = "roles/artifactregistry.serviceAgent", why = "keeps the images" }
    agent_dataflow = { member = google_project_service_identity.agents["dataflow"].member, role = "roles/dataflow.serviceAgent", why = "starts workers as the pipeline's account" }
  }

  # Of the bucket.
  bucket_roles = {
    training = { member = local.training, role = "roles/storage.objectUser", why = "reads records, writes models and reports" }
    pipeline = { member = local.pipeline, role = "roles/storage.objectUser", why = "writes journeys, records and scores, promotes models" }
    serving  = { member = local.serving, role = "roles/storage.objectViewer", why = "loads a model, and changes nothing" }
    analysts = { member = var.analysts, role = "roles/storage.objectUser", why = "uploads packages, reads reports, promotes the first model" }
  }

  # Of datasets; events are read from where they are, by a grant of their owner, on their dataset alone.
  dataset_roles = {
    scores    = { member = local.pipeline, dataset = google_bigquery_dataset.parcours.dataset_id, why = "writes scores" }
    temporary = { member = local.pipeline, dataset = google_bigquery_dataset.temporary.dataset_id, why = "journeys on their way" }
    analysts  = { member = var.analysts, dataset = google_bigquery_dataset.temporary.dataset_id, why = "the same, of deploy.on_dataflow from a laptop" }
  }

  # Who may act as which account: without this, nobody can start a job that runs as it.
  users = {
    training = { member = var.analysts, account = "training", why = "deploy.submit's trainings run as it" }
    pipeline = { member = var.analysts, account = "pipeline", why = "deploy.on_dataflow's workers and schedules run as it" }
    serving  = { member = var.analysts, account = "serving", why = "endpoints and batch predictions run as it" }
    itself   = { member = local.pipeline, account = "pipeline", why = "the workers of a job that a schedule's step starts run as it" }
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

resource "google_bigquery_dataset_iam_member" "parcours" {
  for_each   = local.dataset_roles
  dataset_id = each.value.dataset
  role       = "roles/bigquery.dataEditor"
  member     = each.value.member
}

resource "google_artifact_registry_repository_iam_member" "images" {
  for_each   = { training = local.training, pipeline = local.pipeline, serving = local.serving }
  repository = google_artifact_registry_repository.parcours.name
  location   = var.region
  role       = "roles/artifactregistry.reader"
  member     = each.value
}

resource "google_service_account_iam_member" "users" {
  for_each           = local.users
  service_account_id = google_service_account.parcours[each.value.account].name
  role               = "roles/iam.serviceAccountUser"
  member             = each.value.member
}
