import { type Carrier, ControlError, messageSchema } from './messages.ts'
import {
  EVENTS,
  type EventData,
  type EventName,
  METHODS,
  type MethodName,
  type Params,
  type Result,
} from './methods.ts'

interface Waiting {
  method: MethodName
  resolve(result: unknown): void
  reject(error: ControlError): void
}

/**
 * The asking side. Calls are answered in any order; when the other side is lost, those that wait and those that come are
 * rejected with `Disconnected`.
 */
export class ControlClient {
  readonly #carrier: Carrier
  readonly #waiting = new Map<number, Waiting>()
  readonly #listeners: { [E in EventName]?: (data: EventData<E>) => void } = {}
  #nextId = 1
  #lostReason: string | null = null

  constructor(carrier: Carrier) {
    this.#carrier = carrier
    carrier.onClose((reason) => this.#lose(reason))
    carrier.onMessage((message) => this.#receive(message))
  }

  get isOpen(): boolean {
    return this.#lostReason === null
  }

  /** Rejects with a ControlError. */
  call<M extends MethodName>(method: M, params: Params<M>): Promise<Result<M>> {
    return new Promise<unknown>((resolve, reject) => {
      if (this.#lostReason !== null) {
        reject(new ControlError('Disconnected', this.#lostReason))
        return
      }
      const id = this.#nextId++
      this.#waiting.set(id, { method, resolve, reject })
      this.#carrier.send({ id, method, params })
    }) as Promise<Result<M>>
  }

  /** Sets what to do on an event, instead of what was set before. */
  on<E extends EventName>(event: E, listener: (data: EventData<E>) => void): void {
    Object.assign(this.#listeners, { [event]: listener })
  }

  close(): void {
    this.#lose('the control connection was closed')
    this.#carrier.close()
  }

  #receive(received: unknown): void {
    const { success, data: message } = messageSchema.safeParse(received)
    if (!success || 'method' in message) {
      this.#lose('the other side does not speak this version of the control protocol')
      this.#carrier.close()
    } else if ('event' in message) this.#notify(message.event, message.data)
    else this.#settle(message)
  }

  #notify(event: string, data: unknown): void {
    if (!Object.hasOwn(EVENTS, event)) return
    const parsed = EVENTS[event as EventName].safeParse(data)
    const listener = this.#listeners[event as EventName] as ((data: unknown) => void) | undefined
    if (parsed.success) listener?.(parsed.data)
  }

  #settle(message: { id: number; result?: unknown } | { id: number; error: { code: string; message: string } }): void {
    const waiting = this.#waiting.get(message.id)
    if (waiting === undefined) return
    this.#waiting.delete(message.id)
    if ('error' in message) {
      waiting.reject(new ControlError(message.error.code, message.error.message))
      return
    }
    const result = METHODS[waiting.method].result.safeParse(message.result)
    if (result.success) waiting.resolve(result.data)
    else
      waiting.reject(
        new ControlError('InvalidMessage', `unexpected answer to ${waiting.method}: ${result.error.message}`),
      )
  }

  #lose(reason: string): void {
    if (this.#lostReason !== null) return
    this.#lostReason = reason
    const lost = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const { reject } of lost) reject(new ControlError('Disconnected', reason))
  }
}
