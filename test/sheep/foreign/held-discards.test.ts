import { describe, expect, it } from 'vitest'
import { HeldDiscards } from '../../../src/sheep/foreign/held-discards.ts'
import type { StoreDone } from '../../../src/sheep/object-store.ts'

const client = { id: 1, peer: '127.0.0.1:1', cut: () => {} }

/** A discard that is held, and ends when the test says so. */
function held() {
  const discards = new HeldDiscards()
  const done: StoreDone[] = []
  const hold = () =>
    discards.hold(
      { client, protoVer: 0 },
      () => false,
      (_, each) => done.push(each),
    )
  const fates: string[] = []
  const request = (id: number) =>
    discards.settle(client, id, { run: () => fates.push(`run ${id}`), drop: () => fates.push(`drop ${id}`) })
  return { discards, done, hold, fates, request }
}

describe('requests behind a discard that was held', () => {
  it('run after it, in their order', () => {
    const { done, hold, fates, request } = held()
    hold()
    request(1)
    request(2)
    expect(fates).toEqual([])
    done[0]!(null)
    expect(fates).toEqual(['run 1', 'run 2'])
  })

  it('are dropped when their connection ends meanwhile, each once, and nothing of them runs later', () => {
    const { discards, done, hold, fates, request } = held()
    hold()
    request(1)
    request(2)
    discards.ended(client, () => {})
    expect(fates).toEqual(['drop 1', 'drop 2'])
    done[0]!(null)
    expect(fates).toEqual(['drop 1', 'drop 2'])
  })
})
