# The policies are the API's own JSON (deploy/monitoring), which a test parses into its types; the e-mail address is added.
# A training job's metrics are of the resource cloudml_job, by job_id, sampled once a minute, utilisation from 0 to 1:
# https://cloud.google.com/vertex-ai/docs/general/monitoring-metrics sends to the metrics "training/…" of
# https://cloud.google.com/monitoring/api/metrics_gcp_i_o#gcp-ml for them.
resource "google_monitoring_notification_channel" "email" {
  display_name = "Parcours"
  type         = "email"
  labels = {
    email_address = var.notified
  }
}

locals {
  policies = { for file in fileset("${path.module}/../monitoring", "alert_*.json") : file => jsondecode(file("${path.module}/../monitoring/${file}")) }
  budget   = jsondecode(file("${path.module}/../monitoring/budget.json"))
}

resource "google_monitoring_alert_policy" "parcours" {
  for_each              = local.policies
  display_name          = each.value.displayName
  combiner              = each.value.combiner
  severity              = each.value.severity
  notification_channels = [google_monitoring_notification_channel.email.name]
  user_labels           = local.labels

  documentation {
    content   = each.value.documentation.content
    mime_type = each.value.documentation.mimeType
  }

  dynamic "conditions" {
    for_each = each.value.conditions
    content {
      display_name = conditions.value.displayName
      condition_threshold {
        filter          = conditions.value.conditionThreshold.filter
        comparison      = conditions.value.conditionThreshold.comparison
        threshold_value = conditions.value.conditionThreshold.thresholdValue
        duration        = conditions.value.conditionThreshold.duration
        aggregations {
          alignment_period     = conditions.value.conditionThreshold.aggregations[0].alignmentPeriod
          per_series_aligner   = conditions.value.conditionThreshold.aggregations[0].perSeriesAligner
          cross_series_reducer = conditions.value.conditionThreshold.aggregations[0].crossSeriesReducer
          group_by_fields      = try(conditions.value.conditionThreshold.aggregations[0].groupByFields, null)
        }
      }
    }
  }

  alert_strategy {
    auto_close = each.value.alertStrategy.autoClose
  }
}

resource "google_billing_budget" "parcours" {
  billing_account = var.billing_account
  display_name    = "${local.budget.displayName} (${var.environment})"

  budget_filter {
    projects               = ["projects/${data.google_project.this.number}"]
    calendar_period        = local.budget.budgetFilter.calendarPeriod
    credit_types_treatment = local.budget.budgetFilter.creditTypesTreatment
  }

  amount {
    specified_amount {
      units = var.monthly_budget
    }
  }

  dynamic "threshold_rules" {
    for_each = local.budget.thresholdRules
    content {
      threshold_percent = threshold_rules.value.thresholdPercent
      spend_basis       = threshold_rules.value.spendBasis
    }
  }

  all_updates_rule {
    monitoring_notification_channels = [google_monitoring_notification_channel.email.id]
  }
}
