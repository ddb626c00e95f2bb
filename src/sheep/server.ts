import type { SheepRequest, SheepResponse } from '../protocol/message.ts'
import { BufferPool } from '../runtime/buffer-pool.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { MemoryBudget } from '../runtime/memory-budget.ts'
import type { Connection, Listener, Network } from '../runtime/network.ts'
import { StallGuard } from '../runtime/stall-guard.ts'
import { StuckPeers } from '../runtime/stuck-peers.ts'
import { ClientSession } from './client-session.ts'
import { DEFAULT_DOOR_LIMITS, type DoorLimits } from './door-limits.ts'

/**
 * The door of a sheep: connections of QEMU, tgt, `dog` and other Collie processes. It knows frames and versions; what a
 * request means is `handle`'s business.
 *
 * 1. `handle` is called once per request, in the order in which they arrive on a connection, and calls `reply` exactly once,
 *    at any time and in any order. It must not throw. Opcode, id and epoch of the response are filled in here.
 * 2. A request is not read while the connection has more than `outstandingMaxBytes` of requests and answers in the making, or
 *    while there is no memory for it, which all connections share; the socket is not read meanwhile, so the client feels it.
 *    Whoever keeps memory that others wait for and does not go on is dropped. An answer that nobody could know the length of
 *    and that there is no memory for becomes AGAIN.
 * 3. A process that stood still drops its connections unread: their clients may have sent the same again, or taken it back,
 *    in another way.
 * 4. When a connection ends, `clientClosed` is called once, after the last call of `handle` for it. Replies that come
 *    later are dropped.
 */
export interface SheepServerOptions {
  network: Network
  clock: Clock
  log: Log
  handle(request: SheepRequest, client: SheepClient, reply: (response: Reply) => void): void
  clientClosed(client: SheepClient): void
  /** Called once when a connection was accepted, before anything else about it. */
  clientOpened?(client: SheepClient): void
  /** The epoch of the cluster, for every response. */
  epoch(): number
  limits?: Partial<DoorLimits>
}

export interface SheepClient {
  /** Unique within this server. */
  readonly id: number
  /** `host:port`, or `unix`. */
  readonly peer: string
  /** Drops the connection at once; what has arrived and was not handed on is never seen. */
  cut(): void
}

/** A response without what the server fills in. */
export type Reply = Omit<SheepResponse, 'opcode' | 'id' | 'epoch'>

export interface SheepServerStats {
  /** Connections now. */
  connections: number
  /** Those that are over, and whose last requests are still being done. */
  leavingConnections: number
  /** Connections that ended because the client broke the protocol, or gave way or came on top of a limit. */
  refusedConnections: number
  /** Connections that ended because the client neither took its answers nor finished its request. */
  stuckConnections: number
  /** Times that the process stood still for longer than the limit and dropped its connections. */
  stalls: number
  /** Bytes that connections hold of the memory they have in common, and how many of them wait for some. */
  commonBytes: number
  waitingConnections: number
}

export interface SheepServer {
  readonly stats: SheepServerStats
  /** Starts listening; resolves with the address in use. May be called for several addresses. */
  listen(address: string): Promise<string>
  /** Stops accepting and reading, answers what was handed to `handle`, closes; cuts off who has not taken it by `graceMs`. */
  close(options: { graceMs: number }): Promise<void>
}

export function createSheepServer(options: SheepServerOptions): SheepServer {
  const { network, clock, log } = options
  const limits = { ...DEFAULT_DOOR_LIMITS, ...options.limits }
  const budget = new MemoryBudget(limits)
  const pool = new BufferPool()
  const counters = { refusedConnections: 0, stuckConnections: 0, stalls: 0 }
  const listeners: Listener[] = []
  const sessions = new Set<ClientSession>()
  /** Of `clientsMax`: a connection that is over keeps its place until its requests are done. */
  const places = new Set<ClientSession>()
  /** Those that have never sent a whole request, oldest first. */
  const silent = new Set<ClientSession>()
  let nextClientId = 1
  let closing = false
  let allClosed = () => {}

  const guard = new StallGuard(clock, limits.stallMs, () => {
    counters.stalls++
    log.warn({ connections: sessions.size }, 'the process stood still; dropping its sheep connections unread')
    for (const session of sessions) session.cut()
  })
  const stuck = new StuckPeers<ClientSession>({
    clock,
    limits,
    budget,
    peers: sessions,
    drop: (session, stuckMs) => {
      counters.stuckConnections++
      log.warn({ peer: session.peer, stuckMs }, 'dropping a sheep client that neither reads its answers nor writes on')
      session.cut()
    },
  })

  const accept = (connection: Connection) => {
    if (closing || !makeRoom()) {
      counters.refusedConnections++
      log.warn({ peer: connection.peer, clients: places.size }, 'refused a connection')
      connection.destroy()
      return
    }
    const session: ClientSession = new ClientSession({
      ...options,
      connection,
      id: nextClientId++,
      limits,
      pool,
      budget,
      guard,
      spoke: () => silent.delete(session),
      refused: () => counters.refusedConnections++,
      closed: () => {
        silent.delete(session)
        sessions.delete(session)
        if (sessions.size === 0) allClosed()
      },
      drained: () => places.delete(session),
    })
    sessions.add(session)
    places.add(session)
    silent.add(session)
    session.start()
  }

  /** So a crowd of clients that connect and say nothing cannot keep out one that has something to say. */
  function makeRoom(): boolean {
    if (places.size < limits.clientsMax) return true
    const [oldest] = silent
    if (oldest === undefined) return false
    counters.refusedConnections++
    silent.delete(oldest)
    places.delete(oldest)
    oldest.cut()
    return true
  }

  return {
    get stats() {
      return {
        ...counters,
        connections: sessions.size,
        leavingConnections: [...places].filter((session) => !sessions.has(session)).length,
        commonBytes: budget.drawnBytes,
        waitingConnections: budget.waitingCount,
      }
    },
    listen: async (address) => {
      const listener = await network.listen(address, accept)
      listeners.push(listener)
      return listener.address
    },
    close: async ({ graceMs }) => {
      closing = true
      guard.stop()
      stuck.stop()
      const stopped = listeners.map((listener) => listener.close())
      const ended = new Promise<void>((resolve) => {
        allClosed = resolve
      })
      for (const session of sessions) session.finish()
      const timer = clock.timer(graceMs, () => {
        for (const session of sessions) session.cut()
      })
      if (sessions.size > 0) await ended
      timer.cancel()
      await Promise.all(stopped)
    },
  }
}
