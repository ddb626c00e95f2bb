import { describe, expect, it } from 'vitest'
import { type Operation, UnitHistory } from './unit-history.ts'

const operation = (kind: 'read' | 'write', value: number): Operation => ({ kind, value, isDurable: false })

/** A write that is seen, overwritten, and seen again before it is answered. */
function seenTwice({ repeats }: { repeats: boolean }): UnitHistory {
  const history = new UnitHistory({ repeats })
  const slow = operation('write', 1)
  history.add({ type: 'call', operation: slow })
  for (const each of [operation('read', 1), operation('write', 2), operation('read', 1)]) done(history, each)
  history.add({ type: 'return', operation: slow })
  return history
}

function done(history: UnitHistory, each: Operation): void {
  history.add({ type: 'call', operation: each })
  history.add({ type: 'return', operation: each })
}

describe('the history of a unit', () => {
  it('is in no order when a write happens twice', () => {
    expect(seenTwice({ repeats: false }).whyNot()).toMatch(/read of 1, when it held 2/)
  })

  it('may have a write twice where it may be made again, until it is answered', () => {
    const history = seenTwice({ repeats: true })
    expect(history.whyNot()).toBeNull()
    done(history, operation('write', 3))
    done(history, operation('read', 1))
    expect(history.whyNot()).toMatch(/read of 1, when it held 3/)
  })

  it('may have a write for the second time at the moment of its answer, and what was under way beside it before that', () => {
    const history = new UnitHistory({ repeats: true })
    const [slow, beside] = [operation('write', 1), operation('write', 4)]
    history.add({ type: 'call', operation: slow })
    for (const each of [operation('read', 1), operation('write', 2)]) done(history, each)
    history.add({ type: 'call', operation: beside })
    history.add({ type: 'return', operation: slow })
    done(history, operation('read', 1))
    history.add({ type: 'return', operation: beside })
    expect(history.whyNot()).toBeNull()
    done(history, operation('write', 3))
    done(history, operation('read', 1))
    expect(history.whyNot()).toMatch(/read of 1, when it held 3/)
  })
})
