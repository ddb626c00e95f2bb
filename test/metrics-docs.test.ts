import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { METRICS_PAGE, metricsPage } from '../scripts/metrics-docs.ts'
import { FAMILIES, type Family } from '../src/metrics/catalogue.ts'

const ROWS: [string, Family][] = Object.entries(FAMILIES)
const page = readFileSync(METRICS_PAGE, 'utf8')

describe('the page of metrics', () => {
  it('in the tree is the one of the catalogue (else: npx tsx scripts/metrics-docs.ts)', () => {
    expect(page).toBe(metricsPage())
  })

  it('names nothing that there is not', () => {
    const named = [...page.matchAll(/\b(?:collie|process)_[a-z_]+/g)].map(([name]) => name)
    const known = ROWS.flatMap(([name, { type }]) =>
      type === 'histogram' ? ['', '_bucket', '_sum', '_count'].map((suffix) => name + suffix) : [name],
    )
    expect(named.length).toBeGreaterThan(ROWS.length)
    expect(named.filter((name) => !known.includes(name))).toEqual([])
  })

  it('asks for labels that the families have', () => {
    for (const [, name, selectors] of page.matchAll(/\b(collie_[a-z_]+)\{([^}]+)\}/g)) {
      const { labels } = FAMILIES[name!.replace(/_(bucket|count)$/, '') as keyof typeof FAMILIES] as Family
      for (const [, label] of selectors!.matchAll(/(\w+)=/g)) expect(labels).toContain(label)
    }
  })

  it('has settings for Prometheus that are YAML, with an expression for each alert', () => {
    const blocks = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, yaml]) => parse(yaml!))
    expect(blocks).toMatchObject([{ scrape_configs: [{ job_name: 'collie' }] }, { groups: [{ name: 'collie' }] }])
    const rules: { alert: string; expr: string }[] = blocks[1].groups[0].rules
    expect(rules.length).toBeGreaterThanOrEqual(5)
    for (const { alert, expr } of rules) {
      expect(alert).toMatch(/^Collie[A-Z]/)
      expect(expr).toMatch(/collie_/)
    }
  })
})

describe('a family', () => {
  it('is named with its unit, and a counter as one', () => {
    for (const [name, { type }] of ROWS) {
      expect(name).toMatch(/^(collie|process)_[a-z][a-z0-9_]*$/)
      expect(name.endsWith('_total')).toBe(type === 'counter')
      if (type === 'histogram') expect(name).toMatch(/_seconds$/)
      expect(name).not.toMatch(/_(ms|us|kib|mib|gib|percent)\b/)
    }
  })

  it('has labels whose values are names of ours', () => {
    const bounded = [
      'command',
      'disk', // ids of disks, of which a node has a few
      'error',
      'operation',
      'result',
      'method',
      'route',
      'state',
      'status',
      'kind',
      'thread',
      'roles',
      'version',
    ]
    expect([...new Set(ROWS.flatMap(([, { labels }]) => labels))].sort()).toEqual(bounded.sort())
  })
})
