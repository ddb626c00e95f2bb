import { describe, expect, it } from 'vitest'
import type { Generation, Version } from '../../../src/sheep/copies/version.ts'
import { VersionArray } from '../../../src/sheep/copies/version-array.ts'

const generation = (epoch: number): Generation => ({ epoch, index: epoch, incarnation: 'a' })

describe('versions of many copies', () => {
  it('are those that were set, and none of the others', () => {
    const versions = new VersionArray(4)
    const said: Version[] = [3, 2, 3].map((epoch, at) => ({ generation: generation(epoch), sequence: 2 ** 40 + at }))
    for (const [at, version] of said.entries()) versions.set(at, version)
    expect([0, 1, 2, 3].map((at) => versions.at(at))).toEqual([...said, null])
    versions.set(1, null)
    expect(versions.at(1)).toBeNull()
    expect(versions.generations).toHaveLength(2)
  })

  it('are none of more generations than a byte can name, and never one of another generation', () => {
    const count = 300
    const versions = new VersionArray(count)
    for (let at = 0; at < count; at++) versions.set(at, { generation: generation(at + 1), sequence: 1 })
    const epochs = Array.from({ length: count }, (_, at) => versions.at(at)?.generation.epoch ?? null)
    expect(epochs).toEqual(Array.from({ length: count }, (_, at) => (at < 255 ? at + 1 : null)))
  })
})
