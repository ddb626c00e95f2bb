import type { Network } from '../runtime/network.ts'
import { ControlClient } from './client.ts'
import { ControlError } from './messages.ts'
import type { MethodName, Params, Result } from './methods.ts'
import { socketCarrier } from './socket-carrier.ts'

/** Whoever may be asked over the control channel, whatever carries it. */
export interface ControlCaller {
  /** Rejects with a ControlError. */
  call<M extends MethodName>(method: M, params: Params<M>): Promise<Result<M>>
}

/** Connects to the node that serves a data directory. Rejects with Disconnected when none does. */
export async function connectControl(network: Network, socketPath: string): Promise<ControlClient> {
  try {
    return new ControlClient(socketCarrier(await network.connect(socketPath)))
  } catch (cause) {
    throw new ControlError('Disconnected', `no node answers at ${socketPath}: ${(cause as Error).message}`)
  }
}

/**
 * Asks a node in another process, which may end and start again: a call that finds the connection lost makes a new one.
 * A call that was under way when the connection broke is rejected, since nobody knows whether it took effect.
 */
export class SocketControl implements ControlCaller {
  readonly #network: Network
  readonly #socketPath: string
  #client: ControlClient | null = null

  constructor(network: Network, socketPath: string) {
    this.#network = network
    this.#socketPath = socketPath
  }

  async call<M extends MethodName>(method: M, params: Params<M>): Promise<Result<M>> {
    if (!this.#client?.isOpen) this.#client = await connectControl(this.#network, this.#socketPath)
    return this.#client.call(method, params)
  }

  close(): void {
    this.#client?.close()
    this.#client = null
  }
}
