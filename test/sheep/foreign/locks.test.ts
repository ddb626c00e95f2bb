import { pino } from 'pino'
import { beforeEach, describe, expect, it } from 'vitest'
import { StoreError } from '../../../src/errors.ts'
import { ClusterState } from '../../../src/sheep/cluster-state.ts'
import type { Entry } from '../../../src/sheep/entries.ts'
import { Locks } from '../../../src/sheep/locks.ts'
import type { SheepClient } from '../../../src/sheep/server.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'

const QEMU = 0
const GRACE_MS = 10_000

/* How long a lock lives, by the connections of its holder. */
let state: ClusterState
let clock: SimClock
let locks: Locks
let ids = 0

function open(): Locks {
  return new Locks({
    state,
    propose: async (entry: Entry) => {
      state.check(entry)
      state.apply(state.index + 1, entry)
    },
    clock: clock.mount(),
    graceMs: GRACE_MS,
    log: pino({ level: 'silent' }),
  })
}

beforeEach(() => {
  state = new ClusterState()
  clock = new SimClock(new SeededRandom(1))
  locks = open()
})

function connect(host = '10.0.0.1'): SheepClient {
  const client = { id: ++ids, peer: `${host}:${1000 + ids}`, cut: () => {} }
  locks.opened(client)
  return client
}

/** As QEMU opens a VDI: a connection for its I/O, which stays silent, and one that sends LOCK_VDI and closes. */
async function qemuOpens(host?: string, name = 'a'): Promise<SheepClient> {
  const io = connect(host)
  const control = connect(host)
  locks.spoke(control)
  await locks.take(name, false, control)
  locks.closed(control)
  return io
}

/** Lets the time pass; false when nothing was waiting for it. */
async function timePasses(): Promise<boolean> {
  const hasPassed = clock.step()
  await new Promise((resolve) => setImmediate(resolve)) // what it has set off
  return hasPassed
}
const isLocked = () => state.locks.has('a')

describe('a lock', () => {
  it('lives as long as the connection for I/O, also when nothing is sent over it', async () => {
    const io = await qemuOpens()
    expect(await timePasses()).toBe(false)
    locks.closed(io)
    expect(isLocked()).toBe(true)
    expect(await timePasses()).toBe(true)
    expect(isLocked()).toBe(false)
  })

  it('ends when whoever asked for it goes and has no other connection', async () => {
    const other = connect('10.0.0.2')
    const control = connect()
    locks.spoke(control)
    await locks.take('a', false, control)
    locks.closed(control)
    await timePasses()
    expect(isLocked()).toBe(false)
    locks.closed(other)
  })

  it('is kept by a holder that comes back in time, to write or to read', async () => {
    for (const comesBack of [
      (client: SheepClient) => locks.noteUser('a', client, QEMU),
      (client: SheepClient) => void locks.admitWriter('a', client, QEMU),
    ]) {
      const io = await qemuOpens()
      locks.closed(io)
      const again = connect()
      locks.spoke(again)
      comesBack(again)
      expect(await timePasses()).toBe(false)
      expect(isLocked()).toBe(true)
      locks.closed(again)
      await timePasses()
      expect(isLocked()).toBe(false)
    }
  })

  it('is not kept by others', async () => {
    const io = await qemuOpens()
    locks.closed(io)
    const stranger = connect('10.0.0.2')
    locks.noteUser('a', stranger, QEMU)
    locks.noteUser('a', connect(), 2)
    expect(() => locks.admitWriter('a', stranger, QEMU)).toThrow(expect.objectContaining({ code: 'VdiLocked' }))
    await timePasses()
    expect(isLocked()).toBe(false)
  })

  it('names the connections that a holder that comes back replaces, once', async () => {
    const io = await qemuOpens()
    expect(locks.admitWriter('a', io, QEMU)).toEqual([])
    const again = connect()
    expect(locks.admitWriter('a', again, QEMU)).toEqual([io])
    expect(locks.admitWriter('a', again, QEMU)).toEqual([])
    locks.closed(io)
    expect(await timePasses()).toBe(false)
  })

  it('of before a restart waits for its holder, and then ends', async () => {
    await qemuOpens()
    clock.endProcess()
    locks = open()
    locks.resume(['a'])
    expect(isLocked()).toBe(true)
    const back = connect()
    locks.noteUser('a', back, QEMU)
    expect(await timePasses()).toBe(false)
    clock.endProcess()
    locks = open()
    locks.resume(['a'])
    await timePasses()
    expect(isLocked()).toBe(false)
  })

  it('is not kept by a neighbour that turns out to write to another VDI, though it reads what both share', async () => {
    const neighbour = await qemuOpens(undefined, 'b')
    const io = await qemuOpens()
    locks.closed(io)
    expect(await timePasses()).toBe(false) // it could be the neighbour's too
    locks.spoke(neighbour)
    locks.admitWriter('b', neighbour, QEMU)
    locks.noteUser('a', neighbour, QEMU)
    expect(await timePasses()).toBe(true)
    expect(isLocked()).toBe(false)
    expect(state.locks.has('b')).toBe(true)
    locks.closed(neighbour)
  })

  it('of a tgt that has ended is taken by the next one of the same host at once, and by nobody else', async () => {
    const asking = (host?: string) => {
      const client = connect(host)
      locks.spoke(client)
      return client
    }
    const refused = expect.objectContaining({ code: 'VdiLocked' })
    const tgt = asking()
    await locks.take('a', true, tgt)
    await expect(locks.take('a', true, asking())).rejects.toEqual(refused)
    locks.closed(tgt)
    await expect(locks.take('a', false, asking())).rejects.toEqual(refused)
    await expect(locks.take('a', true, asking('10.0.0.2'))).rejects.toEqual(refused)
    const next = asking()
    await locks.take('a', true, next)
    expect(await timePasses()).toBe(false) // somebody holds it
    expect(state.locks.get('a')?.hosts).toEqual(['10.0.0.1'])
    locks.closed(next)
    expect([await timePasses(), isLocked()]).toEqual([true, false])
  })

  it('that is broken refuses who had it, also when the next one has it', async () => {
    const [io, silent] = [await qemuOpens(), connect()]
    locks.admitWriter('a', io, QEMU)
    expect(await locks.break('a')).toEqual([io])
    const refused = () =>
      expect(() => locks.admitWriter('a', io, QEMU)).toThrow(expect.objectContaining({ code: 'VdiLocked' }))
    refused()
    const next = await qemuOpens()
    refused()
    locks.noteUser('a', io, QEMU)
    for (const client of [next, silent]) locks.closed(client)
    await timePasses()
    expect(isLocked()).toBe(false)
  })

  it('that was broken and taken anew does not end with the first one', async () => {
    const io = await qemuOpens()
    locks.closed(io)
    await locks.drop('a')
    const next = await qemuOpens('10.0.0.2')
    await timePasses()
    expect(state.locks.get('a')?.hosts).toEqual(['10.0.0.2'])
    locks.closed(next)
  })

  it('is not looked at again by a process that ends, though it could not be ended', async () => {
    const propose = async () => {
      locks.stop()
      throw new StoreError('NoQuorum')
    }
    locks = new Locks({ state, propose, clock: clock.mount(), graceMs: GRACE_MS, log: pino({ level: 'silent' }) })
    state.apply(1, { type: 'lock', lock: { name: 'a', shared: false, hosts: ['10.0.0.1'] } })
    locks.resume(['a'])
    expect(await timePasses()).toBe(true)
    expect(await timePasses()).toBe(false)
  })
})
