import type { HistogramData } from '../runtime/histogram.ts'
import { FAMILIES } from './catalogue.ts'
import type { Labels, Sample } from './samples.ts'

/** A line of the page, but for its formatting. */
interface Line {
  metricName: string
  labels: Labels
  value: number
}

export interface Page {
  contentType: string
  text: string
}

/**
 * The page that Prometheus reads: each family that has samples, in the order of the catalogue. A sample of a family that
 * is not there (another process may run another version) is left out.
 */
export async function renderPage(samples: readonly Sample[]): Promise<Page> {
  const linesByName = new Map<string, Line[]>()
  for (const sample of samples) {
    const lines = linesByName.get(sample.name) ?? []
    lines.push(...linesOf(sample))
    linesByName.set(sample.name, lines)
  }
  const families = Object.entries(FAMILIES).flatMap(([name, { type, help }]) => {
    const values = linesByName.get(name)
    return values === undefined ? [] : [{ name, type, help, aggregator: 'first', values }]
  })
  const { AggregatorRegistry } = await import('prom-client') // late: it is large, and many processes never show a page
  const text = await AggregatorRegistry.aggregate([families]).metrics()
  return { contentType: AggregatorRegistry.PROMETHEUS_CONTENT_TYPE, text }
}

function linesOf({ name, labels, value }: Sample): Line[] {
  return typeof value === 'number' ? [{ metricName: name, labels, value }] : bucketsOf(name, labels, value)
}

/** Buckets that include all below them, as the format wants, then sum and count. */
function bucketsOf(name: string, labels: Labels, { bounds, counts, sum }: HistogramData): Line[] {
  let count = 0
  const buckets = counts.map((inBucket, index) => {
    count += inBucket
    return { metricName: `${name}_bucket`, labels: { ...labels, le: String(bounds[index] ?? '+Inf') }, value: count }
  })
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: sum },
    { metricName: `${name}_count`, labels, value: count },
  ]
}
