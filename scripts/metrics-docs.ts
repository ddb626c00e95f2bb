import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { FAMILIES } from '../src/metrics/catalogue.ts'

/** `npx tsx scripts/metrics-docs.ts` writes the page into the tree; a test fails while the committed one differs. */
export const METRICS_PAGE = new URL('../docs/metrics.md', import.meta.url)

const INTRODUCTION = `# Metrics

<!-- Written by scripts/metrics-docs.ts from src/metrics/catalogue.ts. Change that, then run \`npx tsx scripts/metrics-docs.ts\`. -->

The API answers \`/metrics\` in the text format of Prometheus, for the store and the NBD gateway too:

\`\`\`
curl http://127.0.0.1:8776/metrics
\`\`\`

It asks for no token, as \`/healthcheck\`, and shows nothing of a tenant: no id, no name, no project, only sums over all of
them. Who may reach the API may read it; where that is too much, let the proxy in front refuse the path.

- Everything counts from the start of the process that tells it. After a restart it begins at zero, which \`rate()\` knows.
- A page is made at most once a second, and volumes are counted at most every ten seconds, however often it is asked for.
- While the store is away or does not answer within two seconds, \`collie_store_up\` is 0 and its families are absent; those of
  the API are there. When its disk has failed it is 0 too.
- A store without the API (\`--roles store,gateway\`) is shown by the process with the API, and by itself at \`metrics_listen\`, such
  as \`127.0.0.1:9776\`: \`/metrics\` and \`/healthcheck\`, and nothing else. Ask one of the two, or tell them apart by \`instance\`.
- A series appears when there is something to tell: there is no \`collie_nbd_request_errors_total\` before the first error.
- Buckets of latencies go from 25 µs to 10 s.

## Prometheus

\`\`\`yaml
scrape_configs:
  - job_name: collie
    static_configs:
      - targets: ['127.0.0.1:8776']
\`\`\`

What to be woken up for, and what to look at in the morning:

\`\`\`yaml
groups:
  - name: collie
    rules:
      - alert: CollieStoreDown
        expr: collie_store_up == 0 or up{job="collie"} == 0
        for: 1m
      - alert: CollieCorruptBlocks # the disk returns something else than was written; see the log for where
        expr: increase(collie_corrupt_blocks_total[1h]) > 0
      - alert: CollieDiskFailed # one of several; what only it held answers errors
        expr: collie_disks{state="failed"} > 0
      - alert: CollieSpaceLow # gone in a day at the pace of the last six hours, or down to a twentieth
        expr: >
          predict_linear(collie_space_free_bytes[6h], 86400) < 0
          or collie_space_free_bytes < 0.05 * collie_space_total_bytes
        for: 10m
      - alert: CollieFlushSlow # what a database in a guest feels at each commit
        expr: histogram_quantile(0.99, rate(collie_journal_sync_duration_seconds_bucket[5m])) > 0.1
        for: 10m
      - alert: CollieWritesStall # writes come faster than checkpoints move them, or a full disk keeps them waiting
        expr: min_over_time(collie_journal_waiting_transactions[2m]) > 0
        for: 5m
      - alert: CollieWorkGivenUp # a volume or snapshot is in error, and the log says why
        expr: sum by (kind) (increase(collie_work_given_up_total[1h])) > 0
      - alert: CollieStoreThreadBusy # the store has one thread; above this, requests wait for each other
        expr: rate(collie_event_loop_busy_seconds_total{thread="store"}[5m]) > 0.9
        for: 10m
\`\`\`

And what to draw:

| | |
|---|---|
| reads and writes a second | \`sum by (command) (rate(collie_nbd_requests_total[1m]))\` |
| bytes a second | \`sum by (command) (rate(collie_nbd_request_bytes_total[1m]))\` |
| 99 of 100 writes take less than | \`histogram_quantile(0.99, rate(collie_nbd_request_duration_seconds_bucket{command="write"}[5m]))\` |
| promised for each byte of disk | \`collie_provisioned_bytes / collie_space_total_bytes\` |
| requests of the API that failed | \`sum(rate(collie_http_request_duration_seconds_count{status="5xx"}[5m]))\` |
`

const SIDES = [
  ['store', 'Of the store and the gateway', 'Absent while the store cannot be reached.'],
  ['api', 'Of the API', ''],
  [
    'both',
    'Of threads and processes',
    '`thread` is `store` or `api`; `roles` are those of the process, of which there are two when the API runs apart.',
  ],
] as const

/** The whole page, in Markdown. */
export function metricsPage(): string {
  const sections = SIDES.flatMap(([side, title, note]) => [
    `## ${title}`,
    '',
    ...(note === '' ? [] : [note, '']),
    '| name | type | labels | meaning |',
    '|---|---|---|---|',
    ...Object.entries(FAMILIES)
      .filter(([, family]) => family.side === side)
      .map(([name, { type, labels, help }]) => `| \`${name}\` | ${type} | ${labels.map(quote).join(', ')} | ${help} |`),
    '',
  ])
  return [INTRODUCTION, ...sections].join('\n')
}

const quote = (text: string) => `\`${text}\``

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(METRICS_PAGE, metricsPage())
