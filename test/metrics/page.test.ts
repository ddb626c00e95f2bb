import { describe, expect, it } from 'vitest'
import { FAMILIES } from '../../src/metrics/catalogue.ts'
import { renderPage } from '../../src/metrics/page.ts'
import { Samples } from '../../src/metrics/samples.ts'
import { Histogram } from '../../src/runtime/histogram.ts'
import { parseScrape } from '../tools/exposition.ts'

async function scrapeOf(add: (samples: Samples) => void) {
  const samples = new Samples()
  add(samples)
  return parseScrape((await renderPage(samples.list)).text)
}

describe('the page', () => {
  it('shows counters, gauges and histograms with the help of the catalogue', async () => {
    const seconds = new Histogram()
    for (const value of [10e-6, 3e-3, 3e-3, 11]) seconds.observe(value)
    const scrape = await scrapeOf((samples) => {
      samples.add('collie_vdis', 3)
      samples.add('collie_nbd_requests_total', 7, { command: 'read' })
      samples.add('collie_nbd_request_duration_seconds', seconds, { command: 'read' })
    })
    expect(scrape.value('collie_vdis')).toBe(3)
    expect(scrape.value('collie_nbd_requests_total', { command: 'read' })).toBe(7)
    expect(scrape.value('collie_nbd_request_duration_seconds_bucket', { le: '0.000025' })).toBe(1)
    expect(scrape.value('collie_nbd_request_duration_seconds_bucket', { le: '0.005' })).toBe(3)
    expect(scrape.value('collie_nbd_request_duration_seconds_bucket', { le: '10' })).toBe(3)
    expect(scrape.value('collie_nbd_request_duration_seconds_count')).toBe(4)
    expect(scrape.value('collie_nbd_request_duration_seconds_sum')).toBeCloseTo(11.00601)
    for (const { name, type, help } of scrape.families.values())
      expect({ type, help }).toEqual({
        type: FAMILIES[name as keyof typeof FAMILIES].type,
        help: FAMILIES[name as keyof typeof FAMILIES].help,
      })
  })

  it('puts a family that several tell in one place', async () => {
    const scrape = await scrapeOf((samples) => {
      samples.addThread('store', new Histogram())
      samples.addThread('api', new Histogram())
    })
    expect(scrape.series('collie_heap_used_bytes').map(({ labels }) => labels.thread)).toEqual(['store', 'api'])
  })

  it('leaves out what another version may have sent', async () => {
    const { text } = await renderPage([
      { name: 'collie_of_tomorrow', labels: {}, value: 1 },
      { name: 'collie_vdis', labels: {}, value: 1 },
    ])
    expect([...parseScrape(text).families.keys()]).toEqual(['collie_vdis'])
  })
})
