/**
 * A strict reader of the text that Prometheus scrapes, version 0.0.4. It throws on whatever Prometheus would refuse, and on what
 * it would take although it is wrong: a family without help or type, lines of a family apart from each other, a series twice,
 * buckets that do not add up, a counter below zero.
 */
export interface ScrapedFamily {
  name: string
  type: string
  help: string
  series: Series[]
}

export interface Series {
  name: string
  labels: Record<string, string>
  value: number
}

export class Scrape {
  readonly families = new Map<string, ScrapedFamily>()

  /** The value of the one series of this name that has at least these labels; 0 when there is none. */
  value(name: string, labels: Record<string, string> = {}): number {
    const found = this.series(name, labels)
    if (found.length > 1) throw new Error(`${name} is ${found.length} series`)
    return found[0]?.value ?? 0
  }

  series(name: string, labels: Record<string, string> = {}): Series[] {
    const all = [...this.families.values()].flatMap(({ series }) => series)
    return all.filter(
      (each) => each.name === name && Object.entries(labels).every(([key, value]) => each.labels[key] === value),
    )
  }
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/y
const TYPES = ['counter', 'gauge', 'histogram', 'summary', 'untyped']
const VALUE = /^(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]Inf|NaN)$/

export function parseScrape(text: string): Scrape {
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  const scrape = new Scrape()
  let family: ScrapedFamily | undefined
  for (const line of text.split('\n')) {
    if (line === '') continue
    const comment = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line)
    if (comment?.[1] === 'HELP') {
      family = { name: comment[2]!, help: comment[3]!, type: '', series: [] }
      if (!NAME.test(family.name) || scrape.families.has(family.name)) throw new Error(`not a new name: ${line}`)
      scrape.families.set(family.name, family)
    } else if (comment) {
      if (!family || family.name !== comment[2] || family.type !== '' || !TYPES.includes(comment[3]!))
        throw new Error(line)
      family.type = comment[3]!
    } else {
      const series = parseSeries(line)
      if (!family || family.type === '' || !belongs(series.name, family)) throw new Error(`not of a family: ${line}`)
      family.series.push(series)
    }
  }
  for (const each of scrape.families.values()) check(each)
  return scrape
}

function parseSeries(line: string): Series {
  const [, name, , inner = '', value] = /^([^\s{]+)(\{(.*)\})? (\S+)$/.exec(line) ?? []
  if (name === undefined || value === undefined || !NAME.test(name) || !VALUE.test(value)) throw new Error(line)
  return { name, labels: parseLabels(inner), value: Number(value.replace('Inf', 'Infinity')) }
}

function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {}
  for (LABEL.lastIndex = 0; LABEL.lastIndex < text.length; ) {
    const [, key, value] = LABEL.exec(text) ?? []
    if (key === undefined || value === undefined || key in labels) throw new Error(`labels: ${text}`)
    labels[key] = value.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped))
  }
  return labels
}

function belongs(name: string, family: ScrapedFamily): boolean {
  if (family.type !== 'histogram') return name === family.name
  return ['_bucket', '_sum', '_count'].some((suffix) => name === family.name + suffix)
}

function check(family: ScrapedFamily): void {
  if (family.series.length === 0) throw new Error(`${family.name} is empty`)
  const keys = family.series.map(({ name, labels }) => name + JSON.stringify(Object.entries(labels).sort()))
  if (new Set(keys).size !== keys.length) throw new Error(`${family.name} has a series twice`)
  if (family.type === 'counter') {
    if (!family.name.endsWith('_total')) throw new Error(`${family.name} is a counter and not called _total`)
    if (family.series.some(({ value }) => !(value >= 0))) throw new Error(`${family.name} is below zero`)
  }
  if (family.type === 'histogram') checkBuckets(family)
}

function checkBuckets({ name, series }: ScrapedFamily): void {
  const groups = new Map<string, { buckets: [number, number][]; sum?: number; count?: number }>()
  for (const each of series) {
    const { le, ...labels } = each.labels
    const key = JSON.stringify(Object.entries(labels).sort())
    const group = groups.get(key) ?? { buckets: [] }
    groups.set(key, group)
    if (each.name === `${name}_sum`) group.sum = each.value
    else if (each.name === `${name}_count`) group.count = each.value
    else if (le === undefined) throw new Error(`${name} has a bucket without a bound`)
    else group.buckets.push([Number(le.replace('Inf', 'Infinity')), each.value])
  }
  for (const [key, { buckets, sum, count }] of groups) {
    const ascends = buckets.every(([bound, value], i) => {
      const [boundBefore, valueBefore] = buckets[i - 1] ?? [Number.NEGATIVE_INFINITY, 0]
      return bound > boundBefore && value >= valueBefore
    })
    const last = buckets.at(-1)
    const adds = last?.[0] === Number.POSITIVE_INFINITY && last[1] === count && sum !== undefined && sum >= 0
    if (!ascends || !adds) throw new Error(`the buckets of ${name} ${key} do not add up`)
  }
}
