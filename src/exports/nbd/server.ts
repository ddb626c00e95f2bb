import { BufferPool } from '../../runtime/buffer-pool.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import { MemoryBudget } from '../../runtime/memory-budget.ts'
import type { Connection, Listener, Network } from '../../runtime/network.ts'
import { StallGuard } from '../../runtime/stall-guard.ts'
import { StuckPeers } from '../../runtime/stuck-peers.ts'
import type { ExportDirectory } from '../directory.ts'
import { Throttles } from '../qos/throttles.ts'
import { DEFAULT_LIMITS, type NbdLimits } from './limits.ts'
import { CommandMeter } from './meter.ts'
import { type NbdTls, Session } from './session.ts'
import { type NbdStats, newCounters } from './stats.ts'

export interface NbdServer {
  /** Listens on `host:port` or a path, any number of times; resolves with the address in use. */
  listen(address: string): Promise<string>
  /**
   * Ends every session under a right: nothing more of them is read or answered, and when this resolves nothing of
   * them is in a device any more. The directory must have dropped the right before; a client whose look-up was under
   * way is looked up again, and later ones are refused for as long as the directory does not know the right.
   */
  cutOff(rightId: string): Promise<void>
  /** Stops listening, answers what is in flight, and ends every session. */
  close(): Promise<void>
  readonly stats: NbdStats
  readonly meter: CommandMeter
}

export interface NbdServerParts {
  network: Network
  clock: Clock
  log: Log
  exports: ExportDirectory
  limits?: Partial<NbdLimits>
  /** Null, as by default, knows no TLS. */
  tls?: NbdTls | null
}

/**
 * Serves volumes over NBD, fixed newstyle. Reading order: session.ts (one connection), option-reader.ts, options.ts
 * and negotiation.ts (its handshake), request-reader.ts, request-check.ts, transmission.ts and reply-writer.ts.
 */
export function createNbdServer({
  network,
  clock,
  log,
  exports,
  limits: changed,
  tls = null,
}: NbdServerParts): NbdServer {
  const limits = { ...DEFAULT_LIMITS, ...changed }
  const counters = newCounters()
  const meter = new CommandMeter()
  const pool = new BufferPool()
  const budget = new MemoryBudget(limits)
  const throttles = new Throttles(clock, exports)
  const sessions = new Set<Session>()
  const listeners: Listener[] = []
  let cutOffCount = 0
  let closing = false

  const guard = new StallGuard(clock, limits.stallMs, () => {
    counters.stalls++
    log.warn({ connections: sessions.size }, 'the process stood still; dropping its nbd connections unread')
    for (const session of sessions) session.cut()
  })
  const parts = {
    clock,
    log,
    exports,
    throttles,
    pool,
    budget,
    limits,
    counters,
    meter,
    guard,
    tls,
    cutOffCount: () => cutOffCount,
    sessionsUnder: (rightId: string) => [...sessions].filter((session) => session.rightId === rightId).length,
  }
  const stuck = new StuckPeers<Session>({
    clock,
    limits,
    budget,
    peers: sessions,
    drop: (session, stuckMs) => {
      counters.stuckConnections++
      log.warn(
        { right: session.rightId, stuckMs },
        'dropping an nbd client that neither reads its replies nor writes on',
      )
      session.cut()
    },
  })

  function accept(connection: Connection): void {
    if (closing || sessions.size >= limits.connectionsMax || !makeRoomForHandshake()) {
      counters.refusedConnections++
      connection.destroy()
      return
    }
    const session = new Session(connection, parts)
    sessions.add(session)
    void session.closed.then(() => sessions.delete(session))
  }

  /**
   * At the limit the oldest of those who have not shown a right yet gives way: so a crowd of clients that connect and
   * say nothing cannot keep out one that has something to say.
   */
  function makeRoomForHandshake(): boolean {
    if (sessions.size < limits.handshakesMax) return true
    const handshakes = [...sessions].filter((session) => session.inHandshake)
    if (handshakes.length < limits.handshakesMax) return true
    const oldest = handshakes.find(({ rightId }) => rightId === undefined)
    oldest?.refuse()
    return oldest !== undefined
  }

  return {
    listen: async (address) => {
      const listener = await network.listen(address, accept)
      listeners.push(listener)
      log.info({ address: listener.address }, 'nbd server listening')
      return listener.address
    },
    cutOff: async (rightId) => {
      cutOffCount++
      const cut = [...sessions].filter((session) => session.rightId === rightId)
      for (const session of cut) session.cut()
      await Promise.all(cut.map((session) => session.closed))
    },
    close: async () => {
      closing = true
      guard.stop()
      stuck.stop()
      throttles.stop()
      const closed = listeners.map((listener) => listener.close())
      for (const session of sessions) session.stop()
      await Promise.all([...closed, ...[...sessions].map((session) => session.closed)])
    },
    meter,
    get stats() {
      return {
        ...counters,
        connections: sessions.size,
        commonBytes: budget.drawnBytes,
        waitingConnections: budget.waitingCount,
      }
    },
  }
}
