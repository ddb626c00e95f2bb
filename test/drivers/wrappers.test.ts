import { Writable } from 'node:stream'
import { expect, it } from 'vitest'
import { parseFault } from '../../src/drivers/faults.ts'
import { createMemoryBackend, createMemoryDriver } from '../../src/drivers/memory.ts'
import {
  breakerFilter,
  delayFilter,
  errorFilter,
  firstCalls,
  hangFilter,
  logFilter,
  nthCall,
  onAnyMethod,
  onMethod,
  onResource,
  otherThan,
  timeoutFilter,
  wrapDriver,
} from '../../src/drivers/wrappers.ts'
import { ServiceError, UsageError } from '../../src/errors.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { ManualClock } from '../tools/manual-clock.ts'

const volume = { id: 'v1', sizeGib: 1 }

function memory() {
  const backend = createMemoryBackend()
  return { backend, driver: createMemoryDriver(backend, systemRandom) }
}

it('prints itself, outermost first', () => {
  const { driver } = memory()
  const wrapped = wrapDriver(
    driver,
    errorFilter(firstCalls(2, onMethod('createVolume', 'deleteVolume')), 'after'),
    delayFilter(onMethod('stats'), systemClock, 5),
    hangFilter(onMethod('createExport'), 'before'),
  )
  expect(String(wrapped)).toBe(
    'error(after first 2 of createVolume|deleteVolume) over delay(5 ms, stats) over hang(before createExport) over memory',
  )
  expect(wrapped.capabilities).toEqual(driver.capabilities)
})

it('fails before the driver is reached, or after it did its part', async () => {
  const { backend, driver } = memory()
  const before = wrapDriver(driver, errorFilter(onMethod('createVolume'), 'before'))
  await expect(before.createVolume(volume)).rejects.toThrow('injected fault in createVolume')
  expect(backend.volumes.size).toBe(0)
  const after = wrapDriver(driver, errorFilter(onMethod('createVolume'), 'after'))
  await expect(after.createVolume(volume)).rejects.toThrow(ServiceError)
  expect(backend.volumes.size).toBe(1)
})

it('fails the first calls only, and only those it was told', async () => {
  const { driver } = memory()
  const wrapped = wrapDriver(driver, errorFilter(firstCalls(1, onMethod('createVolume')), 'before'))
  await expect(wrapped.stats()).resolves.toHaveLength(1)
  await expect(wrapped.createVolume(volume)).rejects.toThrow()
  await expect(wrapped.createVolume(volume)).resolves.toBeUndefined()
})

it('fails one call of many: by its number, or by what it is about', async () => {
  const { driver } = memory()
  const second = wrapDriver(driver, errorFilter(nthCall(2, onMethod('createVolume')), 'before'))
  await second.createVolume(volume)
  await second.stats()
  await expect(second.createVolume(volume)).rejects.toThrow('injected fault')
  await second.createVolume(volume)
  const one = wrapDriver(driver, errorFilter(onResource('v2', otherThan(onMethod('deleteVolume'))), 'before'))
  await one.createVolume(volume)
  await one.deleteVolume({ id: 'v2', sizeGib: 1 })
  await expect(one.createVolume({ id: 'v2', sizeGib: 1 })).rejects.toThrow('injected fault')
})

it('answers for a driver that takes too long, and for no other', async () => {
  const { driver } = memory()
  const clock = new ManualClock()
  const slow = wrapDriver(
    driver,
    timeoutFilter(onAnyMethod(), clock, 100),
    hangFilter(onMethod('createVolume'), 'before'),
  )
  const waiting = slow.createVolume(volume)
  await expect(slow.stats()).resolves.toHaveLength(1)
  await expect(slow.extendVolume(volume, 2)).rejects.toMatchObject({ code: 'VolumeNotFound' })
  clock.advance(100)
  await expect(waiting).rejects.toThrow('The backend did not answer createVolume within 100 ms.')
  await expect(waiting).rejects.toMatchObject({ code: 'ServiceUnavailable' })
})

it('refuses calls at once while a backend hangs, and no longer once it answers', async () => {
  const { driver } = memory()
  const clock = new ManualClock()
  let hangs = true
  const hang = hangFilter({ matches: () => hangs, toString: () => 'while it hangs' }, 'before')
  const inner = wrapDriver(driver, timeoutFilter(onAnyMethod(), clock, 100), hang)
  const guarded = wrapDriver(
    inner,
    breakerFilter(() => inner.stats()),
  )
  const first = guarded.createVolume(volume)
  clock.advance(100)
  await expect(first).rejects.toThrow('did not answer createVolume')
  await expect(guarded.createVolume(volume)).rejects.toThrow('did not answer createVolume') // without a wait
  await expect(guarded.deleteVolume(volume)).rejects.toMatchObject({ code: 'ServiceUnavailable' })
  hangs = false
  clock.advance(100) // the probe that found it hanging is given up
  await expect.poll(() => guarded.createVolume(volume).then(() => 'made', String)).toBe('made')
  await expect(guarded.extendVolume({ id: 'v2', sizeGib: 1 }, 2)).rejects.toMatchObject({ code: 'VolumeNotFound' })
  await guarded.createVolume(volume) // an error is no timeout
})

it.each([
  'error(before createVolume)',
  'error(after first 2 of createVolume|deleteVolume)',
  'hang(before 3rd of any)',
  'hang(after 11th of stats)',
  'hang(after 21st of stats)',
  'delay(250 ms, 2nd of stats)',
])('is written as it prints itself: %s', (text) => {
  expect(String(parseFault(text, systemClock))).toBe(text)
})

it.each([
  'nonsense',
  'error()',
  'error(createVolume)',
  'error(before createVolumes)',
  'error(before toString)',
  'delay(stats)',
])('is refused when it means nothing: %s', (text) => {
  expect(() => parseFault(text, systemClock)).toThrow(UsageError)
})

it('never answers a call that hangs, and says when that point is reached', async () => {
  const { backend, driver } = memory()
  const reached = new Promise<void>((resolve) => {
    const wrapped = wrapDriver(driver, hangFilter(onMethod('createVolume'), 'after', resolve))
    wrapped.createVolume(volume).finally(() => expect.unreachable('it answered'))
  })
  await reached
  expect(backend.volumes.has('v1')).toBe(true)
})

it('delays a call', async () => {
  const { driver } = memory()
  const sleeps: number[] = []
  const clock = { ...systemClock, sleep: async (delayMs: number) => void sleeps.push(delayMs) }
  const wrapped = wrapDriver(driver, delayFilter(onMethod('stats'), clock, 250))
  await wrapped.stats()
  await wrapped.createVolume(volume)
  expect(sleeps).toEqual([250])
})

it('logs method, resource and outcome, but no arguments', async () => {
  const lines: string[] = []
  const sink = new Writable({
    write: (chunk, _, done) => {
      lines.push(String(chunk))
      done()
    },
  })
  const { driver } = memory()
  const wrapped = wrapDriver(driver, logFilter(createLog('debug', sink), systemClock))
  await wrapped.createVolume(volume)
  await wrapped.createExport(volume, { id: 'a1', mode: 'rw', connector: { host: 'confidential' } })
  await expect(wrapped.extendVolume({ id: 'v2', sizeGib: 1 }, 2)).rejects.toThrow()
  const entries = lines.map((line) => JSON.parse(line))
  expect(entries).toMatchObject([
    { method: 'createVolume', resourceId: 'v1', msg: 'driver call' },
    { method: 'createExport', resourceId: 'v1', msg: 'driver call' },
    { method: 'extendVolume', resourceId: 'v2', msg: 'driver call failed' },
  ])
  expect(lines.join()).not.toContain('confidential')
})
