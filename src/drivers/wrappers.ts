import { ServiceError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { VolumeDriver } from './driver.ts'

/**
 * Filters around a driver, as nbdkit has them around a plugin: each is a driver again, so they compose, and each prints
 * itself, so a failing case names its fault. Faults are products too: an operator rehearses with them.
 */
export type DriverMethod = Exclude<keyof VolumeDriver, 'capabilities'>

export interface DriverCall {
  method: DriverMethod
  /** The id of the resource that the first argument names, or an empty string. */
  resourceId: string
}

export interface DriverFilter {
  /** Runs around each call. `next` makes it. */
  around(call: DriverCall, next: () => Promise<unknown>): Promise<unknown>
  toString(): string
}

/** Which calls a fault hits. May count, so it belongs to one filter. */
export interface CallMatcher {
  matches(call: DriverCall): boolean
  toString(): string
}

const METHODS: Readonly<Record<DriverMethod, true>> = {
  start: true,
  stop: true,
  stats: true,
  createVolume: true,
  createVolumeFromSnapshot: true,
  createClonedVolume: true,
  deleteVolume: true,
  extendVolume: true,
  alterCopies: true,
  createSnapshot: true,
  createGroupSnapshot: true,
  deleteSnapshot: true,
  revertToSnapshot: true,
  createExport: true,
  removeExport: true,
  limitVolume: true,
  openVolume: true,
  openSnapshot: true,
  listManageable: true,
  manageVolume: true,
  manageSnapshot: true,
  discover: true,
  drive: true,
}

/** The driver behind the filters; the first filter is the outermost. */
export function wrapDriver(driver: VolumeDriver, ...filters: readonly DriverFilter[]): VolumeDriver {
  return filters.reduceRight(wrapOnce, driver)
}

function wrapOnce(inner: VolumeDriver, filter: DriverFilter): VolumeDriver {
  const wrapped: Record<string, unknown> = {
    capabilities: inner.capabilities,
    toString: () => `${filter} over ${nameOf(inner)}`,
  }
  for (const method of Object.keys(METHODS) as DriverMethod[]) {
    const call = inner[method] as ((...args: unknown[]) => Promise<unknown>) | undefined
    if (call === undefined) continue // what a driver may leave out
    wrapped[method] = (...args: unknown[]) =>
      filter.around({ method, resourceId: resourceIdOf(args[0]) }, () => call.apply(inner, args))
  }
  return wrapped as unknown as VolumeDriver
}

function nameOf(driver: VolumeDriver): string {
  return Object.hasOwn(driver, 'toString') ? String(driver) : driver.capabilities.storageProtocol
}

function resourceIdOf(argument: unknown): string {
  const named = argument !== null && typeof argument === 'object' && 'id' in argument
  return named ? String(argument.id) : ''
}

export function onMethod(...methods: readonly DriverMethod[]): CallMatcher {
  return {
    matches: ({ method }) => methods.includes(method),
    toString: () => methods.join('|'),
  }
}

export function onAnyMethod(): CallMatcher {
  return { matches: () => true, toString: () => 'any' }
}

/** Calls about one volume, snapshot or other resource. */
export function onResource(id: string, inner: CallMatcher): CallMatcher {
  return { matches: (call) => call.resourceId === id && inner.matches(call), toString: () => `${inner} of ${id}` }
}

export function otherThan(inner: CallMatcher): CallMatcher {
  return { matches: (call) => !inner.matches(call), toString: () => `other than ${inner}` }
}

export function isDriverMethod(name: string): name is DriverMethod {
  return Object.hasOwn(METHODS, name)
}

/** Only the call number `number`, from 1, of those that the inner matcher lets through. */
export function nthCall(number: number, inner: CallMatcher): CallMatcher {
  let seen = 0
  return {
    matches: (call) => inner.matches(call) && ++seen === number,
    toString: () => `${ordinal(number)} of ${inner}`,
  }
}

function ordinal(number: number): string {
  const isTeen = number % 100 >= 11 && number % 100 <= 13
  const suffix = isTeen ? 'th' : (['th', 'st', 'nd', 'rd'][number % 10] ?? 'th')
  return `${number}${suffix}`
}

/** The first `count` calls that the inner matcher lets through. */
export function firstCalls(count: number, inner: CallMatcher): CallMatcher {
  let left = count
  return {
    matches: (call) => left > 0 && inner.matches(call) && left-- > 0,
    toString: () => `first ${count} of ${inner}`,
  }
}

/** `before`: the call never reaches the driver. `after`: it took effect, but the caller hears of the fault instead. */
export type FaultPoint = 'before' | 'after'

/** Rejects with BackendFailure, or with what `error` makes. */
export function errorFilter(
  matcher: CallMatcher,
  point: FaultPoint,
  error: (call: DriverCall) => Error = ({ method }) =>
    new ServiceError('BackendFailure', { reason: `injected fault in ${method}` }),
): DriverFilter {
  return {
    around: async (call, next) => {
      if (!matcher.matches(call)) return next()
      if (point === 'after') await next()
      throw error(call)
    },
    toString: () => `error(${point} ${matcher})`,
  }
}

/** Never answers: what the caller sees of a backend that hangs, and the service of its own death in the middle. */
export function hangFilter(matcher: CallMatcher, point: FaultPoint, reached: () => void = () => {}): DriverFilter {
  return {
    around: async (call, next) => {
      if (!matcher.matches(call)) return next()
      if (point === 'after') await next()
      reached()
      return new Promise(() => {})
    },
    toString: () => `hang(${point} ${matcher})`,
  }
}

export function delayFilter(matcher: CallMatcher, clock: Clock, delayMs: number): DriverFilter {
  return {
    around: async (call, next) => {
      if (matcher.matches(call)) await clock.sleep(delayMs)
      return next()
    },
    toString: () => `delay(${delayMs} ms, ${matcher})`,
  }
}

/**
 * Rejects with ServiceUnavailable when a call takes longer; the call itself goes on, and may still take effect. A driver
 * whose backend can hang needs it: nobody else bounds how long a method takes.
 */
export function timeoutFilter(matcher: CallMatcher, clock: Clock, timeoutMs: number): DriverFilter {
  return {
    around: (call, next) => {
      if (!matcher.matches(call)) return next()
      return new Promise((resolve, reject) => {
        const timer = clock.timer(timeoutMs, () => {
          reject(new DriverTimeout(`The backend did not answer ${call.method} within ${timeoutMs} ms.`))
        })
        next()
          .then(resolve, reject)
          .finally(() => timer.cancel())
      })
    },
    toString: () => `timeout(${timeoutMs} ms, ${matcher})`,
  }
}

/** A call took too long; whether it takes effect is unknown. */
export class DriverTimeout extends ServiceError {
  constructor(reason: string) {
    super('ServiceUnavailable', { reason })
  }
}

/**
 * Refuses calls at once after one that timed out, until `probe` says that the backend answers again: whoever waits for a
 * backend that hangs keeps a place from work on other backends. The probe runs when a call is refused, and not twice at a
 * time. `start` and `stats`, by which backends are watched, always pass.
 */
export function breakerFilter(probe: () => Promise<unknown>): DriverFilter {
  let broken: string | null = null
  let isProbing = false

  async function tryAgain(): Promise<void> {
    if (isProbing) return
    isProbing = true
    await probe().then(
      () => {
        broken = null
      },
      () => {}, // still away; the next call that is refused tries again
    )
    isProbing = false
  }

  return {
    around: async ({ method }, next) => {
      if (method === 'start' || method === 'stats' || method === 'stop') return next()
      if (broken !== null) {
        void tryAgain()
        throw new ServiceError('ServiceUnavailable', { reason: broken })
      }
      try {
        return await next()
      } catch (error) {
        if (error instanceof DriverTimeout) broken = error.message
        throw error
      }
    },
    toString: () => 'breaker',
  }
}

/** One line per call, with how long it took and how it ended. Arguments stay out: connectors hold secrets. */
export function logFilter(log: Log, clock: Clock): DriverFilter {
  return {
    around: async ({ method, resourceId }, next) => {
      const startedMs = clock.monotonicMs()
      const line = () => ({ method, resourceId, durationMs: Math.round(clock.monotonicMs() - startedMs) })
      try {
        const result = await next()
        log.debug(line(), 'driver call')
        return result
      } catch (error) {
        log.warn({ ...line(), err: error }, 'driver call failed')
        throw error
      }
    },
    toString: () => 'log',
  }
}
