{#- Journeys, point in time, in GoogleSQL. Rendered by script.py from a journey spec; BigQuery runs the script as it is,
    DuckDB after dialect.py. Two rules hold throughout. An instant is an INT64 of microseconds since 1970 in UTC, and its
    arithmetic is that of integers. An event is seen at `as_of_us` where seen_us < as_of_us: strictly before, by its own
    time and by the time it could first be read.
    Columns are numbered, so that no name of a source can clash: c = categorical and x = numeric fields of an event,
    k and z = those of a journey (customer, context, the campaign asked about), p = columns of predicates, t and q = context as text and as typed. -#}
{%- macro names(prefix, count, table='') -%}
{%- for i in range(count) %}, {{ table }}{{ prefix }}{{ i }}{% endfor -%}
{%- endmacro %}

{%- macro canonical(table) -%}
-- every row in canonical form, with the number of the first problem that it has (0: none) and the value to blame
SELECT source_row, {{ table.outputs | join(', ') }},
  {% for flag in table.flags %}IFNULL({{ flag.condition }}, FALSE) AS {{ flag.name }}, {% endfor %}problem,
  CASE problem WHEN 0 THEN '' {% for p in table.problems if p.shown %}WHEN {{ p.number }} THEN CAST({{ p.shown }} AS STRING) {% endfor %}ELSE '' END AS shown
FROM (
  SELECT *, CASE {% for p in table.problems %}
    WHEN {{ p.condition }} THEN {{ p.number }} {% endfor %}
    ELSE 0 END AS problem
  FROM (
    SELECT {{ table.table.row }} AS source_row{% for i in table.inputs %},
      {{ i.value }} AS {{ i.name }}{% endfor %}
    FROM {{ table.relation }} AS source))
{%- endmacro %}

{%- macro blamed(table, name, called) -%}
SELECT '{{ called }}' AS source, source_row,
  CASE problem {% for p in table.problems %}WHEN {{ p.number }} THEN {{ p.reason }} {% endfor %}END AS reason,
  CASE problem {% for p in table.problems %}WHEN {{ p.number }} THEN {{ p.column }} {% endfor %}END AS field,
  REGEXP_REPLACE(REGEXP_REPLACE(SUBSTR(shown, 1, 40), r'\pL', 'x'), r'\pN', '9') AS value,
  IF(id IS NULL, '', '***') AS customer
FROM {{ name }}_read WHERE problem > 0
{%- endmacro %}

{%- macro hmac(message) -%}
TO_HEX(SHA256(pads.outer_pad || SHA256(pads.inner_pad || CAST({{ message }} AS BYTES))))
{%- endmacro %}

{%- macro hashed(message) -%}
TO_HEX(SHA256(CAST(CONCAT({{ salt }}, {{ message }}) AS BYTES)))
{%- endmacro %}

{#- the part of the journeys at assignments: beside snapshots one of their own, and what has no place is not dropped -#}
{%- macro part(name) -%}
{%- if assignments and not only_assignments %}IF(c.treated < 0, '{{ name }}', '{{ 'assigned_train' if name == 'train' else 'assigned' }}'){% else %}'{{ name }}'{% endif -%}
{%- endmacro %}

{%- macro left_over(fate) -%}
{%- if only_assignments %}'assigned'{% elif assignments %}IF(c.treated < 0, '{{ fate }}', 'assigned'){% else %}'{{ fate }}'{% endif -%}
{%- endmacro %}

{%- macro in_shard(table='') -%}
{{ table }}person >= @shard_first * {{ persons_a_shard }} AND {{ table }}person < (@shard_last + 1) * {{ persons_a_shard }}
{%- endmacro %}

{%- set kept = "fate IN ('train', 'eval', 'test', 'predict', 'assigned_train', 'assigned')" -%}
{%- set trains = "fate IN ('train', 'assigned_train')" -%}

CREATE TEMP TABLE events_read AS
{{ canonical(events) }};

{% if subjects %}
CREATE TEMP TABLE subjects_read AS
{{ canonical(subjects) }};
{% endif %}

{% if assignments %}
CREATE TEMP TABLE assignments_read AS
{{ canonical(assignments) }};
{% endif %}

CREATE TEMP TABLE set_aside AS
{{ blamed(events, 'events', 'events') }}
{% if subjects %}UNION ALL
{{ blamed(subjects, 'subjects', 'customers' if dated else 'journeys') }}{% endif %}
{% if assignments %}UNION ALL
{{ blamed(assignments, 'assignments', 'assignments') }}
UNION ALL
SELECT 'assignments', source_row, {{ contradiction }}, {{ treated_column }}, '', '***'
FROM (
  SELECT source_row, MIN(treated) OVER told AS least, MAX(treated) OVER told AS most
  FROM assignments_read WHERE problem = 0
  WINDOW told AS (PARTITION BY id, time_us, campaign))
WHERE least <> most{% endif %};

-- keys by HMAC-SHA256, which two SHA256 over padded keys make; the bucket that splits knows no key. A person is the id
-- as a number, by which rows are joined and sorted faster than by text; its shard is the key's first letters
CREATE TEMP TABLE people AS
SELECT id, customer_key, bucket,
  CAST(CONCAT('0x', SUBSTR(customer_key, 1, {{ shard_letters }})) AS INT64) * {{ persons_a_shard }} + ROW_NUMBER() OVER (PARTITION BY SUBSTR(customer_key, 1, {{ shard_letters }}) ORDER BY customer_key) - 1 AS person
FROM (
  SELECT id, {{ hmac('id') }} AS customer_key, {{ hashed('id') }} AS bucket
  FROM (
    SELECT id FROM events_read WHERE problem = 0
    {% if assignments %}UNION DISTINCT SELECT id FROM assignments_read WHERE problem = 0{% endif %}
    {% if subjects %}UNION DISTINCT SELECT id FROM subjects_read WHERE problem = 0{% endif %}
    {% if not subjects and not assignments %}GROUP BY id{% endif %}) AS ids
  CROSS JOIN {{ pads }} AS pads);

-- n counts the events of a customer from 1, in time, ties broken by everything that is known of an event:
-- what still ties is one event told twice
CREATE TEMP TABLE events CLUSTER BY person AS
SELECT person, n, time_us, {{ 'GREATEST(time_us, available_us)' if available else 'time_us' }} AS seen_us
  {{- names('c', categorical | length) }}{{ names('x', numeric | length) }}{{ names('p', events.predicates) }}{{ names('t', context | length) }}
  {%- for flag in events.flags %}, {{ flag.name }}{% endfor %}
FROM (
  SELECT e.*, people.person, {{ 'DENSE_RANK()' if drop_duplicates else 'ROW_NUMBER()' }} OVER w AS n, ROW_NUMBER() OVER w > RANK() OVER w AS is_duplicate
  FROM events_read AS e
  JOIN people ON people.id = e.id
  WHERE e.problem = 0
  WINDOW w AS (PARTITION BY people.person ORDER BY time_us{{ ', order_key' if ordered }}{{ ', available_us' if available }}
    {{- names('c', categorical | length) }}{{ names('x', numeric | length) }}{{ names('p', events.predicates) }}))
{{ 'WHERE NOT is_duplicate' if drop_duplicates }};

{% if dated %}
{% if subjects %}
-- a row of the customer table holds from after its valid_us through next_us
CREATE TEMP TABLE subjects AS
SELECT people.person, valid_us, IFNULL(LEAD(valid_us) OVER (PARTITION BY people.person ORDER BY valid_us{{ names('k', subjects.categorical) }}{{ names('z', subjects.numeric) }}{{ names('p', subjects.predicates) }}), 9223372036854775807) AS next_us
  {{- names('k', subjects.categorical) }}{{ names('z', subjects.numeric) }}
  {%- for flag in subjects.flags %}, {{ flag.name }}{% endfor %}
FROM subjects_read AS s
JOIN people ON people.id = s.id
WHERE s.problem = 0;
{% endif %}

-- who is asked about, and when
CREATE TEMP TABLE candidates AS
{% if at_events %}
SELECT person, as_of_us, context_text
  {%- for i in range(context_categorical | length) %}, MIN(k{{ i + own_categorical }}) AS k{{ i + own_categorical }}{% endfor %}
  {%- for i in range(context_numeric | length) %}, MIN(z{{ i + own_numeric }}) AS z{{ i + own_numeric }}{% endfor %}
  {%- for c in context %}, MIN(q{{ loop.index0 }}) AS q{{ loop.index0 }}{% endfor %}
FROM (
  SELECT person, time_us AS as_of_us,
    {% if context %}CONCAT({% for c in context %}'\x1f', t{{ loop.index0 }}{{ ', ' if not loop.last }}{% endfor %}){% else %}''{% endif %} AS context_text
    {%- for c in context_categorical %}, c{{ c }} AS k{{ loop.index0 + own_categorical }}{% endfor %}
    {%- for x in context_numeric %}, x{{ x }} AS z{{ loop.index0 + own_numeric }}{% endfor %}
    {%- for c in context %}, {{ c.value }} AS q{{ loop.index0 }}{% endfor %}
  FROM events
  WHERE is_trigger AND time_us < {{ data_until_us }}{{ ' AND time_us >= %d' % first_us if first_us is not none }}{{ ' AND time_us <= %d' % last_us if last_us is not none }})
GROUP BY person, as_of_us, context_text;
{% else %}
{% if instants_us %}
SELECT first_seen.person, as_of_us, '' AS context_text{{ ", '' AS campaign, -1 AS treated" if assigns }}
FROM (
  SELECT person, MIN(seen_us) AS seen_us
  FROM (SELECT person, seen_us FROM events{% if subjects %} UNION ALL SELECT person, valid_us FROM subjects{% endif %})
  GROUP BY person) AS first_seen
JOIN UNNEST([{{ instants_us | join(', ') }}]) AS as_of_us ON first_seen.seen_us < as_of_us
{{ 'UNION ALL' if assignments }}
{% endif %}
{% if assignments %}
SELECT people.person, time_us AS as_of_us, CONCAT('\x1f', campaign) AS context_text, campaign, MIN(treated) AS treated
FROM assignments_read AS a
JOIN people ON people.id = a.id
WHERE a.problem = 0
GROUP BY people.person, time_us, campaign
HAVING MIN(treated) = MAX(treated)
{% endif %};
{% endif %}

-- which part each belongs to, or why to none
CREATE TEMP TABLE judged AS
SELECT c.person, people.id, c.as_of_us, c.context_text
  {{- ', c.campaign, c.treated' if assigns }}
  {{- names('k', own_categorical, 's.') }}{% for i in range(context_categorical | length) %}, c.k{{ i + own_categorical }}{% endfor %}
  {%- if assigns %}, IF(c.treated = 1, c.campaign, '') AS k{{ own_categorical }}{% endif %}
  {{- names('z', own_numeric, 's.') }}{% for i in range(context_numeric | length) %}, c.z{{ i + own_numeric }}{% endfor %}
  {{- names('q', context | length, 'c.') }},
  {% if predict %}FALSE{% else %}people.bucket < '{{ held_out_below }}'{% endif %} AS held_out,
  CASE
    {% if subjects and subjects.flags %}WHEN NOT IFNULL(s.is_eligible, FALSE) THEN 'ineligible'{% endif %}
    {% if after_event %}WHEN NOT IFNULL(a.seen_us < c.as_of_us, FALSE) THEN 'ineligible'{% endif %}
    {% if predict %}WHEN TRUE THEN 'predict'
    {% else %}
    {% if assignments and assigned_below %}WHEN c.treated >= 0 AND {{ hashed("'assignment', people.id, CAST(c.as_of_us AS STRING), c.campaign") }} >= '{{ assigned_below }}' THEN 'sampled_out'{% endif %}
    {% if assignments %}WHEN c.treated >= 0 AND c.as_of_us > {{ data_until_us }} THEN 'unobserved'{% endif %}
    {% if test_us is not none %}
    WHEN c.as_of_us >= {{ test_us }} THEN IF(c.as_of_us <= {{ data_until_us - shortest_us }}, {{ part('test') }}, {{ left_over('unobserved') }})
    {% if eval_us is not none %}
    WHEN c.as_of_us > {{ test_us - embargo_us }} THEN {{ left_over('embargo') }}
    WHEN c.as_of_us < {{ eval_us }} AND c.as_of_us > {{ eval_us - embargo_us }} THEN {{ left_over('embargo') }}
    {% else %}
    WHEN c.as_of_us > {{ test_us - embargo_us }} THEN {{ left_over('embargo') }}
    {% endif %}
    WHEN people.bucket < '{{ held_out_below }}' THEN {{ left_over('held_out') }}
    WHEN c.as_of_us > {{ data_until_us - shortest_us }} THEN {{ left_over('unobserved') }}
    {% else %}
    WHEN c.as_of_us > {{ data_until_us - shortest_us }} THEN {{ left_over('unobserved') }}
    WHEN people.bucket < '{{ held_out_below }}' THEN 'test'
    {% endif %}
    WHEN {% if eval_us is not none %}c.as_of_us >= {{ eval_us }}{% else %}people.bucket < '{{ eval_below }}'{% endif %} THEN {{ part('eval') }}
    ELSE {{ part('train') }}
    {% endif %}
  END AS fate
FROM candidates AS c
JOIN people ON people.person = c.person
{% if subjects %}LEFT JOIN subjects AS s ON s.person = c.person AND s.valid_us < c.as_of_us AND c.as_of_us <= s.next_us{% endif %}
{% if after_event %}LEFT JOIN (SELECT person, MIN(seen_us) AS seen_us FROM events WHERE is_after GROUP BY person) AS a ON a.person = c.person{% endif %};

-- the first conversion at or after as_of + gap; negatives known for the longest horizon are thinned in train, or, at
-- assignments, of which none is lost, weigh less
CREATE TEMP TABLE decided CLUSTER BY person AS
{% if predict %}
SELECT *, CAST(NULL AS INT64) AS label_n, CAST(NULL AS FLOAT64) AS days_to_conversion, 0.0 AS observed_days, 1.0 AS weight
  {{- ', CAST(NULL AS FLOAT64) AS days_since_conversion' if assigns }} FROM judged;
{% else %}
{% set never = "j.as_of_us <= %d AND IFNULL(first_conversion.time_us >= j.as_of_us + %d, TRUE)" % (data_until_us - longest_us, longest_us) %}
SELECT j.* EXCEPT (fate), first_conversion.n AS label_n,
  (first_conversion.time_us - (j.as_of_us + {{ gap_us }})) / {{ day_us }} AS days_to_conversion,
  ({{ data_until_us }} - j.as_of_us) / {{ day_us }} AS observed_days,
  {% if assigns %}
  (j.as_of_us - last_conversion.time_us) / {{ day_us }} AS days_since_conversion,
  {% endif %}
  {% if keep_below and assigns %}
  IF(j.treated >= 0 AND j.{{ trains }} AND {{ never }}, {{ negative_weight }}, 1.0) AS weight,
  {% else %}
  1.0 AS weight,
  {% endif %}
  {% if keep_below %}
  IF(j.fate = 'train' AND {{ 'j.treated < 0 AND ' if assigns }}{{ never }}
    AND {{ hashed("'negative', j.id, CAST(j.as_of_us AS STRING)") }} >= '{{ keep_below }}', 'sampled_out', j.fate) AS fate
  {% else %}
  j.fate
  {% endif %}
FROM judged AS j
{% if assigns %}
LEFT JOIN (
  SELECT j.person, j.as_of_us, MAX(e.time_us) AS time_us
  FROM judged AS j
  JOIN events AS e ON e.person = j.person AND e.time_us < j.as_of_us
  WHERE j.{{ kept }} AND e.is_conversion
  GROUP BY j.person, j.as_of_us) AS last_conversion
ON last_conversion.person = j.person AND last_conversion.as_of_us = j.as_of_us
{% endif %}
LEFT JOIN (
  SELECT j.person, j.as_of_us, j.context_text, MIN(e.n) AS n, MIN(e.time_us) AS time_us
  FROM judged AS j
  JOIN events AS e ON e.person = j.person AND e.time_us >= j.as_of_us + {{ gap_us }}
  WHERE j.{{ kept }} AND e.is_conversion AND e.time_us < {{ data_until_us }}{% if converts_in_context %} AND {{ converts_in_context }}{% endif %}
  GROUP BY j.person, j.as_of_us, j.context_text) AS first_conversion
ON first_conversion.person = j.person AND first_conversion.as_of_us = j.as_of_us AND first_conversion.context_text = j.context_text;
{% endif %}

{% else %}
-- ready-made journeys: the id is the journey's, its events are the first few, its as_of a microsecond after the last of them
CREATE TEMP TABLE judged AS
SELECT people.person, s.id, IFNULL(last_event.time_us, 0) + 1 AS as_of_us, '' AS context_text
  {{- names('k', own_categorical, 's.') }}{{ names('z', own_numeric, 's.') }}, FALSE AS held_out, {{ 'FALSE' if predict else 's.label' }} AS label,
  CASE
    {% if subjects.flags %}WHEN NOT s.is_wanted THEN 'ineligible'{% endif %}
    {% if predict %}WHEN TRUE THEN 'predict'
    {% elif split_column %}
    WHEN s.part = {{ split_column.train }} THEN 'train'
    WHEN s.part = {{ split_column.eval }} THEN 'eval'
    WHEN s.part = {{ split_column.test }} THEN 'test'
    ELSE 'outside_split'
    {% else %}
    WHEN people.bucket < '{{ held_out_below }}' THEN 'test'
    WHEN people.bucket < '{{ eval_below }}' THEN 'eval'
    ELSE 'train'
    {% endif %}
  END AS fate
FROM subjects_read AS s
JOIN people ON people.id = s.id
LEFT JOIN (SELECT person, MAX(time_us) AS time_us FROM events{{ ' WHERE n <= %d' % first_events if first_events }} GROUP BY person) AS last_event ON last_event.person = people.person
WHERE s.problem = 0;

CREATE TEMP TABLE decided CLUSTER BY person AS
SELECT * EXCEPT (fate, label), CAST(NULL AS INT64) AS label_n,
  IF({{ 'FALSE' if predict else 'label' }}, 0.0, NULL) AS days_to_conversion, {{ '0.0' if predict else '1.0' }} AS observed_days, 1.0 AS weight,
  {% if keep_below and not predict %}
  IF(fate = 'train' AND NOT label AND {{ hashed("'negative', id, CAST(as_of_us AS STRING)") }} >= '{{ keep_below }}', 'sampled_out', fate) AS fate
  {% else %}
  fate
  {% endif %}
FROM judged;
{% endif %}

{% if not predict %}
-- values that enough train customers hold, where train journeys that are kept could show them; all others become __rare__
CREATE TEMP TABLE known_values AS
SELECT field, value, COUNT(DISTINCT person) AS customers
FROM (
  {% for c in categorical %}
  {% if not loop.first %}UNION ALL{% endif %}
  SELECT {{ c.label }} AS field, e.c{{ loop.index0 }} AS value, e.person
  FROM events AS e
  JOIN (SELECT person, MIN(as_of_us) AS first_us, MAX(as_of_us) AS last_us FROM decided WHERE {{ trains }} GROUP BY person) AS train ON train.person = e.person
  WHERE {% if dated %}e.seen_us < train.last_us AND e.time_us >= train.first_us - {{ lookback_us }}{% else %}{{ 'e.n <= %d' % first_events if first_events else 'TRUE' }}{% endif %}
  {% endfor %}
  {% for k in scalar_categorical %}
  {% if categorical or not loop.first %}UNION ALL{% endif %}
  SELECT {{ k.label }} AS field, IFNULL(k{{ loop.index0 }}, '') AS value, person FROM decided WHERE {{ trains }}
  {% endfor %}
  {% if not categorical and not scalar_categorical %}SELECT '' AS field, '' AS value, 0 AS person{% endif %})
WHERE value <> ''
GROUP BY field, value;
{% endif %}

-- from here on by shards of customers: @shard_first to @shard_last, the first letters of their keys as numbers

-- events lo < n <= hi of a customer lie in the window of the as_of; those of ineligible journeys are told apart below
CREATE OR REPLACE TEMP TABLE windows AS
{% if dated %}
-- an edge's rank among the events and edges, less that among the edges, is how many events lie before it
SELECT person, as_of_us, is_kept, MIN(past) AS lo, MAX(past) AS hi
FROM (
  SELECT person, as_of_us, is_kept, place - RANK() OVER (PARTITION BY person ORDER BY us) AS past
  FROM (
    SELECT person, as_of_us, is_kept, us, RANK() OVER (PARTITION BY person ORDER BY us, is_event) AS place
    FROM (
      SELECT person, CAST(NULL AS INT64) AS as_of_us, FALSE AS is_kept, time_us AS us, 1 AS is_event FROM events WHERE {{ in_shard() }}
      UNION ALL
      SELECT person, as_of_us, is_kept, as_of_us - back_us, 0
      FROM (
        SELECT person, as_of_us, LOGICAL_OR({{ kept }}) AS is_kept
        FROM decided WHERE {{ in_shard() }} AND ({{ kept }} OR fate = 'ineligible') GROUP BY person, as_of_us)
      CROSS JOIN UNNEST([0, {{ lookback_us }}]) AS back_us))
  WHERE as_of_us IS NOT NULL)
GROUP BY person, as_of_us, is_kept;
{% else %}
SELECT d.person, d.as_of_us, TRUE AS is_kept, 0 AS lo, {% if first_events %}LEAST(COUNT(e.n), {{ first_events }}){% else %}COUNT(e.n){% endif %} AS hi
FROM decided AS d LEFT JOIN events AS e ON e.person = d.person AND {{ in_shard('e.') }}
WHERE {{ in_shard('d.') }} AND d.{{ kept }}
GROUP BY d.person, d.as_of_us;
{% endif %}

-- the events that each as_of sees: the last few of its window
CREATE OR REPLACE TEMP TABLE steps AS
{% if available %}
SELECT w.person, w.as_of_us, e.n
FROM (SELECT person, as_of_us, n FROM windows CROSS JOIN UNNEST(GENERATE_ARRAY(lo + 1, hi)) AS n WHERE is_kept) AS w
JOIN events AS e ON e.person = w.person AND e.n = w.n
WHERE e.seen_us < w.as_of_us
QUALIFY ROW_NUMBER() OVER (PARTITION BY w.person, w.as_of_us ORDER BY e.n DESC) <= {{ max_events }};
{% else %}
SELECT person, as_of_us, n
FROM windows CROSS JOIN UNNEST(GENERATE_ARRAY(GREATEST(lo, hi - {{ max_events }}) + 1, hi)) AS n
WHERE is_kept;
{% endif %}

CREATE OR REPLACE TEMP TABLE sequences AS
SELECT s.person, s.as_of_us, ARRAY_AGG(TIMESTAMP_MICROS(e.time_us) ORDER BY s.n) AS event_time
  {%- for c in categorical %}, ARRAY_AGG(e.c{{ loop.index0 }} ORDER BY s.n) AS c{{ loop.index0 }}{% endfor %}
  {%- for x in numeric %}, ARRAY_AGG(e.x{{ loop.index0 }} ORDER BY s.n) AS x{{ loop.index0 }}{% endfor %}
FROM steps AS s
JOIN (
  SELECT person, n, time_us
    {%- for c in categorical %},
    {% if predict %}c{{ loop.index0 }}{% else %}IF(c{{ loop.index0 }} = '' OR c{{ loop.index0 }} IN (SELECT value FROM known_values WHERE field = {{ c.label }} AND customers >= {{ min_customers }}), c{{ loop.index0 }}, '__rare__') AS c{{ loop.index0 }}{% endif %}
    {%- endfor %}
    {%- for x in numeric %}, IFNULL(x{{ loop.index0 }}, CAST('nan' AS FLOAT64)) AS x{{ loop.index0 }}{% endfor %}
  FROM events WHERE {{ in_shard() }}) AS e
ON e.person = s.person AND e.n = s.n
GROUP BY s.person, s.as_of_us;

CREATE OR REPLACE TEMP TABLE balance AS
{% if dated and not available %}
-- By edges of windows, without a look at each event. as_of by as_of no edge goes back, so that of a window what is new
-- begins where it does or where the last one ended; and a label n lies in a window where, of those that end at or
-- after n, the first begins before it
SELECT of_windows.featured + IFNULL(labelled, 0) - IFNULL(label_featured, 0) AS used, of_windows.featured AS used_as_feature, IFNULL(labelled, 0) AS used_as_conversion,
  of_windows.in_window - of_windows.featured - IFNULL(label_in_window, 0) + IFNULL(label_featured, 0) AS truncated,
  of_windows.in_any - of_windows.in_window - IFNULL(label_in_any, 0) + IFNULL(label_in_window, 0) AS ineligible,
  read - of_windows.in_any - IFNULL(labelled, 0) + IFNULL(label_in_any, 0) AS outside_windows
FROM (SELECT COUNT(*) AS read FROM events WHERE {{ in_shard() }}) AS of_events
CROSS JOIN (
  SELECT IFNULL(SUM(IF(is_kept, GREATEST(0, hi - GREATEST(first, kept_before)), 0)), 0) AS featured,
    IFNULL(SUM(IF(is_kept, GREATEST(0, hi - GREATEST(lo, kept_before)), 0)), 0) AS in_window,
    IFNULL(SUM(GREATEST(0, hi - GREATEST(lo, any_before))), 0) AS in_any
  FROM (
    SELECT is_kept, lo, hi, GREATEST(lo, hi - {{ max_events }}) AS first,
      IFNULL(MAX(IF(is_kept, hi, 0)) OVER earlier, 0) AS kept_before, IFNULL(MAX(hi) OVER earlier, 0) AS any_before
    FROM windows
    WINDOW earlier AS (PARTITION BY person ORDER BY as_of_us ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))) AS of_windows
CROSS JOIN (
  SELECT COUNT(*) AS labelled, COUNTIF(first < n) AS label_featured, COUNTIF(lo < n) AS label_in_window, COUNTIF(any_lo < n) AS label_in_any
  FROM (
    SELECT n, is_label, MIN(first) OVER later AS first, MIN(lo) OVER later AS lo, MIN(any_lo) OVER later AS any_lo
    FROM (
      SELECT person, hi AS n, FALSE AS is_label, IF(is_kept, GREATEST(lo, hi - {{ max_events }}), NULL) AS first, IF(is_kept, lo, NULL) AS lo, lo AS any_lo
      FROM windows
      UNION ALL
      SELECT DISTINCT person, label_n, TRUE, CAST(NULL AS INT64), CAST(NULL AS INT64), CAST(NULL AS INT64)
      FROM decided WHERE {{ in_shard() }} AND {{ kept }} AND label_n IS NOT NULL)
    WINDOW later AS (PARTITION BY person ORDER BY n RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING))
  WHERE is_label) AS of_labels;
{% else %}
SELECT COUNTIF(is_feature OR is_label) AS used, COUNTIF(is_feature) AS used_as_feature, COUNTIF(is_label) AS used_as_conversion,
  COUNTIF(NOT is_feature AND NOT is_label AND in_window) AS truncated,
  COUNTIF(NOT is_feature AND NOT is_label AND NOT in_window AND is_ineligible) AS ineligible,
  COUNTIF(NOT is_feature AND NOT is_label AND NOT in_window AND NOT is_ineligible) AS outside_windows
FROM (
  SELECT feature.n IS NOT NULL AS is_feature, label.label_n IS NOT NULL AS is_label,
    {% if dated %}
    IFNULL(e.kept_us <= e.time_us + {{ lookback_us }}, FALSE) AS in_window,
    IFNULL(e.ineligible_us <= e.time_us + {{ lookback_us }}, FALSE) AS is_ineligible
  FROM (
    -- the next as_of that sees an event: where that lies beyond the lookback, so do all others
    SELECT person, n, time_us, MIN(kept_as_of) OVER later AS kept_us, MIN(ineligible_as_of) OVER later AS ineligible_us
    FROM (
      SELECT person, n, time_us, seen_us AS us, CAST(NULL AS INT64) AS kept_as_of, CAST(NULL AS INT64) AS ineligible_as_of
      FROM events WHERE {{ in_shard() }}
      UNION ALL
      SELECT person, CAST(NULL AS INT64), CAST(NULL AS INT64), as_of_us, IF({{ kept }}, as_of_us, NULL), IF(fate = 'ineligible', as_of_us, NULL)
      FROM decided WHERE {{ in_shard() }})
    WINDOW later AS (PARTITION BY person ORDER BY us RANGE BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)) AS e
    {% else %}
    IFNULL(d.{{ kept }}, FALSE) AS in_window, IFNULL(d.fate = 'ineligible', FALSE) AS is_ineligible
  FROM (SELECT person, n FROM events WHERE {{ in_shard() }}) AS e
  LEFT JOIN decided AS d ON d.person = e.person
    {% endif %}
  LEFT JOIN (SELECT DISTINCT person, n FROM steps) AS feature ON feature.person = e.person AND feature.n = e.n
  LEFT JOIN (SELECT DISTINCT person, label_n FROM decided WHERE {{ in_shard() }} AND {{ kept }}) AS label ON label.person = e.person AND label.label_n = e.n
  WHERE e.n IS NOT NULL);
{% endif %}

CREATE OR REPLACE TABLE {{ journeys }} CLUSTER BY customer_key, as_of, journey_id AS
SELECT {{ hmac("CONCAT(d.id, '\\x1f', CAST(d.as_of_us AS STRING), d.context_text)") }} AS journey_id, people.customer_key,
  TIMESTAMP_MICROS(d.as_of_us) AS as_of, d.fate AS split, d.held_out
  {%- for c in categorical %},
  IFNULL(s.c{{ loop.index0 }}, ARRAY<STRING>[]) AS {{ c.name }}{% endfor %}
  {%- for x in numeric %},
  IFNULL(s.x{{ loop.index0 }}, ARRAY<FLOAT64>[]) AS {{ x.name }}{% endfor %},
  IFNULL(s.event_time, ARRAY<TIMESTAMP>[]) AS event_time
  {%- for k in scalar_categorical %},
  {% if predict %}IFNULL(d.k{{ loop.index0 }}, ''){% else %}IF(IFNULL(d.k{{ loop.index0 }}, '') = '' OR d.k{{ loop.index0 }} IN (SELECT value FROM known_values WHERE field = {{ k.label }} AND customers >= {{ min_customers }}), IFNULL(d.k{{ loop.index0 }}, ''), '__rare__'){% endif %} AS {{ k.name }}{% endfor %}
  {%- for z in scalar_numeric %},
  IFNULL(d.z{{ loop.index0 }}, CAST('nan' AS FLOAT64)) AS {{ z.name }}{% endfor %},
  d.days_to_conversion, d.observed_days, d.weight{{ ', d.campaign AS assigned_campaign, d.treated, d.days_since_conversion' if assigns }}
FROM decided AS d
JOIN people ON people.person = d.person
LEFT JOIN sequences AS s ON s.person = d.person AND s.as_of_us = d.as_of_us
CROSS JOIN {{ pads }} AS pads
WHERE {{ in_shard('d.') }} AND d.{{ kept }};
