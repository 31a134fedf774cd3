# Run directories, scores and models. Journeys are personal data: they are deleted after keep_runs_days. What lies under none
# of the prefixes below has no end.
resource "google_storage_bucket" "runs" {
  name                        = "${var.project}-runs"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  labels                      = local.labels

  encryption {
    default_kms_key_name = google_kms_crypto_key.runs.id
  }

  versioning {
    enabled = true # what a wrong command overwrote can be had back; so can a model that was replaced
  }

  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  lifecycle_rule {
    condition {
      age            = var.keep_runs_days
      matches_prefix = ["runs/"]
    }
    action {
      type = "Delete"
    }
  }

  # Scores, and the reports and pairs of double runs.
  lifecycle_rule {
    condition {
      age            = 400
      matches_prefix = ["scores/", "double_runs/", "pairs/"]
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      age            = 30
      matches_prefix = ["pipelines/"]
    }
    action {
      type = "Delete"
    }
  }

  # What Dataflow's jobs write in between, journeys among it where a job was killed: at deploy.on_dataflow's places, and
  # beside the scores of the nightly schedule.
  lifecycle_rule {
    condition {
      age            = 7
      matches_prefix = ["dataflow/", "scores/.dataflow/"]
    }
    action {
      type = "Delete"
    }
  }

  # A week to take back a wrong command, and no longer, since this may hold journeys. Rules cannot say "all but models/", so
  # the others are named; models/. is what a promotion writes on its way, its lock and the copy that it stages.
  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 7
      matches_prefix = [
        "runs/", "scores/", "double_runs/", "pairs/", "pipelines/", "dataflow/", "events/", "specs/", "packages/", "models/.",
      ]
    }
    action {
      type = "Delete"
    }
  }

  # The rest: a model that deploy.promote replaced stays a year, so that a score can be explained later.
  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 365
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.services]
}

# Scores and pairs.
resource "google_bigquery_dataset" "parcours" {
  dataset_id                      = "parcours"
  location                        = var.region
  default_partition_expiration_ms = 34560000000 # 400 days
  labels                          = local.labels
  delete_contents_on_destroy      = false

  default_encryption_configuration {
    kms_key_name = google_kms_crypto_key.runs.id
  }

  depends_on = [google_kms_crypto_key_iam_member.services]
}

# Journeys on their way: every table is gone after a day, whoever forgot it.
resource "google_bigquery_dataset" "temporary" {
  dataset_id                  = "parcours_temporary"
  location                    = var.region
  default_table_expiration_ms = 86400000
  labels                      = local.labels
  delete_contents_on_destroy  = true

  default_encryption_configuration {
    kms_key_name = google_kms_crypto_key.runs.id
  }

  depends_on = [google_kms_crypto_key_iam_member.services]
}
