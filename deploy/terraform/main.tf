terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
    google-beta = {
      source  = "hashicorp/google-beta"
      version = ">= 6.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

provider "google-beta" {
  project = var.project
  region  = var.region
}

# A person's login has no project whose quota the budget's API could count against, and is refused without one:
# https://registry.terraform.io/providers/hashicorp/google/latest/docs/resources/billing_budget
provider "google" {
  alias                 = "billing"
  project               = var.project
  billing_project       = var.project
  user_project_override = true
}

# All else waits for these: a new project has few APIs on. Service Usage, which turns them on, must be among those.
resource "google_project_service" "needed" {
  for_each = toset([
    "aiplatform",
    "artifactregistry",
    "bigquery",
    "bigquerystorage",
    "billingbudgets",
    "cloudkms",
    "cloudresourcemanager",
    "compute",
    "dataflow",
    "iam",
    "logging",
    "monitoring",
    "servicenetworking",
    "storage",
  ])
  service            = "${each.value}.googleapis.com"
  disable_on_destroy = false
}

# The network that jobs run in: no public address, and Google's APIs by private access.
resource "google_compute_network" "parcours" {
  name                    = "parcours"
  auto_create_subnetworks = false

  depends_on = [google_project_service.needed]
}

resource "google_compute_subnetwork" "parcours" {
  name                     = "parcours"
  network                  = google_compute_network.parcours.id
  region                   = var.region
  ip_cidr_range            = "10.10.0.0/20"
  private_ip_google_access = true
}

# Vertex AI's machines are peered with it.
resource "google_compute_global_address" "peering" {
  name          = "parcours-vertex"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 16
  network       = google_compute_network.parcours.id
}

resource "google_service_networking_connection" "vertex" {
  network                 = google_compute_network.parcours.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.peering.name]
}

resource "google_artifact_registry_repository" "parcours" {
  repository_id = "parcours"
  location      = var.region
  format        = "DOCKER"
  labels        = local.labels
  kms_key_name  = google_kms_crypto_key.runs.id

  docker_config {
    immutable_tags = true # what was tested under a tag is what runs under it
  }

  depends_on = [google_kms_crypto_key_iam_member.services]
}

# What trainings write for TensorBoard is shown here: baseOutputDirectory's logs/, uploaded by Vertex AI.
resource "google_vertex_ai_tensorboard" "parcours" {
  display_name = "parcours"
  region       = var.region
  labels       = local.labels

  encryption_spec {
    kms_key_name = google_kms_crypto_key.runs.id
  }

  depends_on = [google_kms_crypto_key_iam_member.services]
}

# Where experiments are kept, if an environment names one. Made here since what a client makes on the way has no key of ours.
resource "google_vertex_ai_metadata_store" "parcours" {
  provider = google-beta
  name     = "default"
  region   = var.region

  encryption_spec {
    kms_key_name = google_kms_crypto_key.runs.id
  }

  depends_on = [google_kms_crypto_key_iam_member.services]
}

output "environment_file" {
  description = "The values of job_configs/environments/*.yaml that this made."
  # of the network Vertex AI wants the name with the project's number in it, where the provider's id has the project's id
  value = {
    project          = var.project
    region           = var.region
    bucket           = google_storage_bucket.runs.name
    dataset          = google_bigquery_dataset.parcours.dataset_id
    network          = "projects/${data.google_project.this.number}/global/networks/${google_compute_network.parcours.name}"
    subnetwork       = "regions/${var.region}/subnetworks/${google_compute_subnetwork.parcours.name}"
    training_account = google_service_account.parcours["training"].email
    pipeline_account = google_service_account.parcours["pipeline"].email
    serving_account  = google_service_account.parcours["serving"].email
    cmek_key         = google_kms_crypto_key.runs.id
    tensorboard      = google_vertex_ai_tensorboard.parcours.name
    experiment       = "${google_vertex_ai_metadata_store.parcours.id}/contexts/parcours"
  }
}
