project         = "parcours-production"
environment     = "production"
region          = "us-central1"
billing_account = "000000-000000-000000"
monthly_budget  = 2000
notified        = "parcours-alerts@example.com"
analysts        = "group:parcours-analysts@example.com"
keep_runs_days  = 180
