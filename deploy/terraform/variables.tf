# One set of files for every environment; integration.tfvars and production.tfvars give the values.
variable "project" {
  type        = string
  description = "The project's id. Integration and production are two projects, so that nothing reaches from one to the other."
}

variable "environment" {
  type        = string
  description = "integration or production: a label on everything, for the bill."
}

variable "region" {
  type        = string
  description = "Where everything lies and runs. Data never leaves it."
}

variable "billing_account" {
  type        = string
  description = "The billing account's id, for the budget."
}

variable "monthly_budget" {
  type        = number
  description = "Currency a month; people are told at 50, 90 and 100 % of it."
}

variable "notified" {
  type        = string
  description = "The e-mail address that alerts and the budget go to."
}

variable "analysts" {
  type        = string
  description = "The group whose members submit jobs and read reports, group:name@example.com."
}

variable "keep_runs_days" {
  type        = number
  description = "Days after which run directories are deleted: what a training left, journeys of customers included."
}

locals {
  labels = {
    application = "parcours"
    environment = var.environment
    cost_centre = "marketing"
  }
}
