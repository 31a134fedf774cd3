{{ config(materialized='table') }}

-- One row an event, as examples/dbt/journeys.yaml reads it. Runs in BigQuery and in DuckDB.
SELECT customer_id, ordered_at AS event_time, loaded_at AS ingest_time, 'purchase' AS event_type, channel, amount
FROM {{ source('shop', 'orders') }}
UNION ALL
SELECT customer_id, viewed_at, loaded_at, 'page_view', 'web', NULL
FROM {{ source('shop', 'page_views') }}
WHERE customer_id IS NOT NULL
