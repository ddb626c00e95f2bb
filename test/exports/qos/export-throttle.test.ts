import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ExportThrottle, type ThrottleTurn } from '../../../src/exports/qos/export-throttle.ts'
import type { Direction } from '../../../src/exports/qos/rate-limiter.ts'
import { ManualClock } from '../../tools/manual-clock.ts'

/** Counts the timers that wait. */
class CountingClock extends ManualClock {
  timersLeft = 0

  override timer(delayMs: number, fire: () => void) {
    this.timersLeft++
    let isOver = false
    const end = () => {
      if (!isOver) this.timersLeft--
      isOver = true
    }
    const timer = super.timer(delayMs, () => {
      end()
      fire()
    })
    return {
      cancel: () => {
        end()
        timer.cancel()
      },
    }
  }
}

/** A connection that always has another request, as Transmission does it: at most so many, in its turn of the event loop. */
class GreedyClient {
  readonly turn: ThrottleTurn
  private readonly direction: Direction
  private readonly bytes: number
  /** When each request went. */
  readonly wentMs: number[] = []
  private readonly clock: ManualClock
  private isWoken = true

  constructor(throttle: ExportThrottle, clock: ManualClock, direction: Direction, bytes: number) {
    this.turn = throttle.turn(() => {
      this.isWoken = true
    })
    this.clock = clock
    this.direction = direction
    this.bytes = bytes
  }

  /** Sends what may go; answers whether anything did. */
  pump(most = 1): boolean {
    if (!this.isWoken) return false
    for (let sent = 0; sent < most; sent++) {
      this.isWoken = this.turn.pass(this.direction, this.bytes)
      if (!this.isWoken) return sent > 0
      this.wentMs.push(this.clock.monotonicMs())
    }
    return true
  }
}

function runAll(clients: readonly GreedyClient[], clock: ManualClock, ms: number): void {
  for (let passed = 0; passed < ms; passed++) {
    while (clients.map((client) => client.pump()).includes(true));
    clock.advance(1)
  }
}

describe('connections of one export', () => {
  it('go at its rate together, and take turns, whatever they ask for', () => {
    const clock = new CountingClock()
    const throttle = new ExportThrottle(clock)
    throttle.setLimits({ totalIops: { perSecond: 500 } })
    const clients = [512, 4096, 1 << 20, 32 << 20].map((bytes) => new GreedyClient(throttle, clock, 'read', bytes))
    runAll(clients, clock, 10_000)
    const counts = clients.map(({ wentMs }) => wentMs.length)
    const all = counts.reduce((sum, count) => sum + count, 0)
    expect(all).toBeGreaterThanOrEqual(5000)
    expect(all).toBeLessThanOrEqual(5000 + 50 + 4)
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
  })

  it('have one timer while anybody waits, none otherwise, and stand in the queue once each', () => {
    const clock = new CountingClock()
    const throttle = new ExportThrottle(clock)
    throttle.setLimits({ writeBytes: { perSecond: 1_000_000 } })
    const clients = Array.from({ length: 50 }, () => new GreedyClient(throttle, clock, 'write', 100_000))
    for (let passed = 0; passed < 300; passed++) {
      for (const client of clients) client.pump()
      expect(throttle.waitingCount).toBeLessThanOrEqual(clients.length)
      expect(clock.timersLeft).toBe(throttle.waitingCount > 0 ? 1 : 0)
      clock.advance(1)
    }
    for (const { turn } of clients) turn.close()
    expect([throttle.waitingCount, clock.timersLeft]).toEqual([0, 0])
  })

  it('are held back by the limits of their own direction only', () => {
    const clock = new ManualClock()
    const throttle = new ExportThrottle(clock)
    throttle.setLimits({ writeIops: { perSecond: 1 }, totalIops: { perSecond: 100 } })
    const [writer, reader] = [
      new GreedyClient(throttle, clock, 'write', 0),
      new GreedyClient(throttle, clock, 'read', 0),
    ]
    runAll([writer, reader], clock, 10_000)
    expect(writer.wentMs.length).toBeGreaterThanOrEqual(10)
    expect(writer.wentMs.length).toBeLessThanOrEqual(12)
    expect(reader.wentMs.length).toBeGreaterThan(980)
  })

  it('are served again, all of them, however they come and go', () => {
    const actions = fc.array(
      fc.record({ client: fc.nat({ max: 4 }), advanceMs: fc.nat({ max: 50 }), closes: fc.boolean() }),
      { maxLength: 60 },
    )
    fc.assert(
      fc.property(actions, (steps) => {
        const clock = new ManualClock()
        const throttle = new ExportThrottle(clock)
        throttle.setLimits({ totalIops: { perSecond: 20 }, totalBytes: { perSecond: 100_000 } })
        const make = (at: number) => new GreedyClient(throttle, clock, at % 2 === 0 ? 'read' : 'write', 1000 * at)
        const clients = [0, 1, 2, 3, 4].map(make)
        for (const { client, advanceMs, closes } of steps) {
          clients[client]!.pump(3)
          if (closes) {
            clients[client]!.turn.close()
            clients[client] = make(client)
          }
          clock.advance(advanceMs)
        }
        const before = clients.map(({ wentMs }) => wentMs.length)
        runAll(clients, clock, 2000)
        clients.forEach(({ wentMs }, at) => {
          expect(wentMs.length).toBeGreaterThan(before[at]!)
        })
      }),
    )
  })

  it('feel new limits at once, and go without any once there are none', () => {
    const clock = new CountingClock()
    const throttle = new ExportThrottle(clock)
    expect(throttle.isLimited).toBe(false)
    throttle.setLimits({ readIops: { perSecond: 1 } })
    expect(throttle.isLimited).toBe(true)
    const client = new GreedyClient(throttle, clock, 'read', 0)
    runAll([client], clock, 10_000)
    expect(client.wentMs.length).toBeLessThanOrEqual(12)
    const before = client.wentMs.length
    throttle.setLimits({ readIops: { perSecond: 100 } })
    runAll([client], clock, 2000)
    expect(client.wentMs.length - before).toBeGreaterThan(100)
    expect(client.wentMs.length - before).toBeLessThan(220)
    client.pump(100)
    throttle.setLimits(null)
    expect([throttle.isLimited, throttle.waitingCount, clock.timersLeft]).toEqual([false, 0, 0])
    expect(client.pump(1000)).toBe(true)
  })
})
