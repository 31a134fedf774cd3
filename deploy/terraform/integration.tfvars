project         = "parcours-integration"
environment     = "integration"
region          = "us-central1"
billing_account = "000000-000000-000000"
monthly_budget  = 300
notified        = "parcours-alerts@example.com"
analysts        = "group:parcours-analysts@example.com"
keep_runs_days  = 30
