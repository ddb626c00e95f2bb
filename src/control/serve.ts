import { ServiceError, StoreError } from '../errors.ts'
import { type Carrier, ControlError, messageSchema } from './messages.ts'
import { type EventData, type EventName, type Handlers, METHODS, type MethodName } from './methods.ts'

export interface ControlServer {
  emit<E extends EventName>(event: E, data: EventData<E>): void
}

export interface ServeOptions {
  /** Told of failures that are not symbolic, before the caller is told `Internal`. */
  onDefect(error: unknown, method: string): void
}

/** Calls that may be under way on one carrier; a caller that makes more is cut off. */
const CALLS_MAX = 1024

/**
 * The answering side: calls the handler of each request and sends back what it resolves with. A StoreError,
 * ServiceError or ControlError keeps its code; any other failure becomes `Internal` without details.
 */
export function serveControl(carrier: Carrier, handlers: Handlers, { onDefect }: ServeOptions): ControlServer {
  let calls = 0
  let open = true
  carrier.onClose(() => {
    open = false
  })

  const answer = async (id: number, method: string, params: unknown) => {
    calls++
    const message = await handle(handlers, method, params).then(
      (result) => ({ id, result }),
      (error: unknown) => ({ id, error: describe(error, method) }),
    )
    calls--
    if (open) carrier.send(message)
  }

  const describe = (error: unknown, method: string) => {
    if (error instanceof StoreError || error instanceof ServiceError || error instanceof ControlError) {
      return { code: error.code, message: error.message }
    }
    onDefect(error, method)
    return { code: 'Internal', message: `${method} failed; the log of the node says why` }
  }

  carrier.onMessage((received) => {
    const { success, data: message } = messageSchema.safeParse(received)
    if (success && 'method' in message && calls < CALLS_MAX) void answer(message.id, message.method, message.params)
    else carrier.close()
  })

  return {
    emit: (event, data) => {
      if (open) carrier.send({ event, data })
    },
  }
}

async function handle(handlers: Handlers, method: string, params: unknown): Promise<unknown> {
  const handler = Object.hasOwn(handlers, method) ? handlers[method as MethodName] : undefined
  if (handler === undefined) throw new ControlError('UnknownMethod', `${method}: there is no such method here`)
  const parsed = METHODS[method as MethodName].params.safeParse(params)
  if (!parsed.success) throw new ControlError('InvalidMessage', `${method}: ${parsed.error.message}`)
  // Each handler takes the parameters of its own method, which is what the schema of that name has just checked.
  return (handler as (params: unknown) => Promise<unknown>)(parsed.data)
}
