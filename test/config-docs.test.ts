import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { CONFIG_PAGE, configPage } from '../scripts/config-docs.ts'
import { SETTINGS } from '../src/settings.ts'

describe('the page of settings', () => {
  it('in the tree is the one of the schema (else: npx tsx scripts/config-docs.ts)', () => {
    expect(readFileSync(CONFIG_PAGE, 'utf8')).toBe(configPage())
  })

  it('has a row for each setting, with its default', () => {
    const rows = configPage().matchAll(/^\| `(?<name>[^`]+)` \| (?:`[^`]+`|none) \| [^|]+ \| [^|]+ \|$/gm)
    expect([...rows].map(({ groups }) => groups!.name)).toEqual(SETTINGS.map(({ name }) => name))
  })
})
