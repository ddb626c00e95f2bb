/** Counted since the server was created. */
export interface NbdCounters {
  requests: number
  errors: number
  bytesRead: number
  bytesWritten: number
  /** Connections that ended because the client broke the protocol, took too long or came on top of a limit. */
  refusedConnections: number
  /** Connections that ended because the client neither took its replies nor finished its request. */
  stuckConnections: number
  /** Times that the process stood still for longer than the limit and dropped its connections. */
  stalls: number
}

export interface NbdStats extends NbdCounters {
  /** Connections now, with those still in the handshake. */
  connections: number
  /** Bytes that connections hold of the memory they have in common, and how many of them wait for some. */
  commonBytes: number
  waitingConnections: number
}

export function newCounters(): NbdCounters {
  return {
    requests: 0,
    errors: 0,
    bytesRead: 0,
    bytesWritten: 0,
    refusedConnections: 0,
    stuckConnections: 0,
    stalls: 0,
  }
}
