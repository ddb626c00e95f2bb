import { Writable } from 'node:stream'
import { expect, it } from 'vitest'
import { createMemoryBackend, createMemoryDriver } from '../../src/drivers/memory.ts'
import {
  delayFilter,
  errorFilter,
  firstCalls,
  hangFilter,
  logFilter,
  onMethod,
  wrapDriver,
} from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'

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
