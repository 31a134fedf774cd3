# The key that encrypts run directories, models, tables and the machines' disks (CMEK). Whoever disables it makes all of it
# unreadable at once.
resource "google_kms_key_ring" "parcours" {
  name     = "parcours"
  location = var.region
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
}

# Google's own service agents encrypt and decrypt on the project's behalf, and nobody else does.
resource "google_kms_crypto_key_iam_member" "services" {
  for_each = toset([
    "service-${data.google_project.this.number}@gs-project-accounts.iam.gserviceaccount.com",
    "bq-${data.google_project.this.number}@bigquery-encryption.iam.gserviceaccount.com",
    "service-${data.google_project.this.number}@gcp-sa-aiplatform.iam.gserviceaccount.com",
    "service-${data.google_project.this.number}@gcp-sa-aiplatform-cc.iam.gserviceaccount.com",
    "service-${data.google_project.this.number}@gcp-sa-artifactregistry.iam.gserviceaccount.com",
    "service-${data.google_project.this.number}@compute-system.iam.gserviceaccount.com",
    "service-${data.google_project.this.number}@dataflow-service-producer-prod.iam.gserviceaccount.com",
  ])
  crypto_key_id = google_kms_crypto_key.runs.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}"
}
