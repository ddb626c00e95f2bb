import { describe, expect, it } from 'vitest'
import { parseScrape } from './exposition.ts'

const page = (...lines: string[]) => `${lines.join('\n')}\n`
const HELP = '# HELP a_total What a is.'
const TYPE = '# TYPE a_total counter'
const HISTOGRAM = ['# HELP h H.', '# TYPE h histogram']

describe('the reader of scrapes', () => {
  it('reads families, labels and values', () => {
    const scrape = parseScrape(
      page(
        HELP,
        TYPE,
        'a_total{x="1",y="a \\"b\\" \\\\ \\n,}"} 1.5e3',
        'a_total 2',
        '',
        '# HELP b B.',
        '# TYPE b gauge',
        'b -Inf',
      ),
    )
    expect(scrape.families.get('a_total')).toMatchObject({ type: 'counter', help: 'What a is.' })
    expect(scrape.value('a_total', { x: '1' })).toBe(1500)
    expect(scrape.series('a_total')[0]!.labels).toEqual({ x: '1', y: 'a "b" \\ \n,}' })
    expect(scrape.value('b')).toBe(Number.NEGATIVE_INFINITY)
    expect(scrape.value('c')).toBe(0)
  })

  it.each<[string, string]>([
    ['no end of the last line', `${HELP}\n${TYPE}\na_total 1`],
    ['no help', page(TYPE, 'a_total 1')],
    ['no type', page(HELP, 'a_total 1')],
    ['an unknown type', page(HELP, '# TYPE a_total number', 'a_total 1')],
    ['a family twice', page(HELP, TYPE, 'a_total 1', HELP, TYPE, 'a_total{x="1"} 1')],
    ['a series twice', page(HELP, TYPE, 'a_total{x="1",y="2"} 1', 'a_total{y="2",x="1"} 1')],
    ['a line of another family', page(HELP, TYPE, 'a_total 1', 'b 1')],
    ['a family without lines', page(HELP, TYPE)],
    ['a bad name', page('# HELP a-b_total A.', '# TYPE a-b_total counter', 'a-b_total 1')],
    ['a bad value', page(HELP, TYPE, 'a_total one')],
    ['labels without quotes', page(HELP, TYPE, 'a_total{x=1} 1')],
    ['a quote too few', page(HELP, TYPE, 'a_total{x="1} 1')],
    ['a label twice', page(HELP, TYPE, 'a_total{x="1",x="2"} 1')],
    ['a counter below zero', page(HELP, TYPE, 'a_total -1')],
    ['a counter by another name', page('# HELP a A.', '# TYPE a counter', 'a 1')],
    ['buckets that fall', page(...HISTOGRAM, 'h_bucket{le="1"} 2', 'h_bucket{le="+Inf"} 1', 'h_sum 1', 'h_count 1')],
    [
      'buckets out of order',
      page(...HISTOGRAM, 'h_bucket{le="2"} 1', 'h_bucket{le="1"} 1', 'h_bucket{le="+Inf"} 1', 'h_sum 1', 'h_count 1'),
    ],
    ['no last bucket', page(...HISTOGRAM, 'h_bucket{le="1"} 1', 'h_sum 1', 'h_count 1')],
    ['a count that is another', page(...HISTOGRAM, 'h_bucket{le="+Inf"} 1', 'h_sum 1', 'h_count 2')],
    ['no sum', page(...HISTOGRAM, 'h_bucket{le="+Inf"} 1', 'h_count 1')],
  ])('refuses %s', (_, text) => {
    expect(() => parseScrape(text)).toThrow()
  })
})
