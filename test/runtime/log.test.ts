import { describe, expect, it } from 'vitest'
import { batched, createLog } from '../../src/runtime/log.ts'

/** What was written at a time, as the messages of its lines. */
function openLog() {
  const writes: string[][] = []
  let wrote = () => {}
  const written = new Promise<void>((resolve) => {
    wrote = resolve
  })
  const log = createLog(
    'info',
    batched({
      write: (lines) => {
        writes.push(
          lines
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line).msg),
        )
        wrote()
      },
      flushSync: () => {},
    }),
  )
  return { log, writes, written }
}

describe('the log', () => {
  it('writes lines of a busy moment at once, soon after the first', async () => {
    const { log, writes, written } = openLog()
    for (const message of ['one', 'two', 'three']) log.info(message)
    expect(writes).toEqual([])
    await written
    expect(writes).toEqual([['one', 'two', 'three']])
  })

  it('writes a warning on the spot, with all that came before', () => {
    const { log, writes } = openLog()
    log.info('before')
    log.child({}, { redact: [] }).info('of a child')
    log.warn('now')
    log.error('and now')
    expect(writes).toEqual([['before', 'of a child', 'now'], ['and now']])
  })

  it('keeps no more than a batch', () => {
    const { log, writes } = openLog()
    log.info('x'.repeat(70_000))
    expect(writes).toHaveLength(1)
  })
})
