# The key that encrypts run directories, models, tables and the machines' disks (CMEK). Whoever disables it makes all of it
# unreadable at once.
resource "google_kms_key_ring" "parcours" {
  name     = "parcours"
  location = var.region

  depends_on = [google_project_service.needed]
}

resource "google_kms_crypto_key" "runs" {
  name            = "runs"
  key_ring        = google_kms_key_ring.parcours.id
  rotation_period = "7776000s" # 90 days; what was encrypted before stays readable
  labels          = local.labels

  lifecycle {
    prevent_destroy = true
  }
}

data "google_project" "this" {
  project_id = var.project

  depends_on = [google_project_service.needed]
}

# A new project has no service agents, and nothing can be granted to one that is not there. Asking for these makes them:
# https://cloud.google.com/iam/docs/create-service-agents. One that is made so has not the role that Google gives to one of its
# own making: accounts.tf does.
resource "google_project_service_identity" "agents" {
  provider = google-beta
  for_each = toset(["aiplatform", "artifactregistry", "dataflow"])
  project  = var.project
  service  = "${each.value}.googleapis.com"

  depends_on = [google_project_service.needed]
}

data "google_storage_project_service_account" "this" {
  project = var.project

  depends_on = [google_project_service.needed]
}

data "google_bigquery_default_service_account" "this" {
  project = var.project

  depends_on = [google_project_service.needed]
}

locals {
  # Vertex AI's agent for custom code is not among them: jobs here run as accounts of their own, and
  # https://cloud.google.com/vertex-ai/docs/general/cmek names the first agent alone.
  encrypting = {
    storage          = data.google_storage_project_service_account.this.member
    bigquery         = data.google_bigquery_default_service_account.this.member
    aiplatform       = google_project_service_identity.agents["aiplatform"].member
    artifactregistry = google_project_service_identity.agents["artifactregistry"].member
    dataflow         = google_project_service_identity.agents["dataflow"].member
    # there as soon as the API is on; asking for it is refused
    compute = "serviceAccount:service-${data.google_project.this.number}@compute-system.iam.gserviceaccount.com"
  }
}

# Google's own service agents encrypt and decrypt on the project's behalf, and nobody else does.
resource "google_kms_crypto_key_iam_member" "services" {
  for_each      = local.encrypting
  crypto_key_id = google_kms_crypto_key.runs.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = each.value
}
