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

  depends_on = [google_project_service.needed]
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

      dynamic "condition_threshold" {
        for_each = try([conditions.value.conditionThreshold], [])
        content {
          filter          = condition_threshold.value.filter
          comparison      = condition_threshold.value.comparison
          threshold_value = condition_threshold.value.thresholdValue
          duration        = condition_threshold.value.duration
          aggregations {
            alignment_period     = condition_threshold.value.aggregations[0].alignmentPeriod
            per_series_aligner   = condition_threshold.value.aggregations[0].perSeriesAligner
            cross_series_reducer = condition_threshold.value.aggregations[0].crossSeriesReducer
            group_by_fields      = try(condition_threshold.value.aggregations[0].groupByFields, null)
          }
        }
      }

      dynamic "condition_matched_log" {
        for_each = try([conditions.value.conditionMatchedLog], [])
        content {
          filter           = condition_matched_log.value.filter
          label_extractors = condition_matched_log.value.labelExtractors
        }
      }
    }
  }

  alert_strategy {
    auto_close = each.value.alertStrategy.autoClose

    dynamic "notification_rate_limit" {
      for_each = try([each.value.alertStrategy.notificationRateLimit], [])
      content {
        period = notification_rate_limit.value.period
      }
    }
  }
}

resource "google_billing_budget" "parcours" {
  provider        = google.billing
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
