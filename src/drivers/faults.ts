import { UsageError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import {
  type CallMatcher,
  type DriverFilter,
  type DriverMethod,
  delayFilter,
  errorFilter,
  type FaultPoint,
  firstCalls,
  hangFilter,
  isDriverMethod,
  nthCall,
  onAnyMethod,
  onMethod,
} from './wrappers.ts'

/**
 * Reads a fault as it prints itself, so that the line in a log or a failing test is also how to have it again:
 *
 *     error(before createVolume)                  every createVolume fails, and does nothing
 *     error(after first 2 of createVolume|deleteVolume)   two calls take effect, but are reported as failed
 *     hang(before 3rd of any)                     the third call of all never answers
 *     delay(250 ms, stats)
 *
 * Throws a UsageError that names what is wrong.
 */
export function parseFault(text: string, clock: Clock): DriverFilter {
  const [, kind, inside] = /^(error|hang|delay)\((.+)\)$/.exec(text.trim()) ?? []
  if (inside === undefined) throw new UsageError(`"${text}" is no fault, such as error(before 2nd of createVolume)`)
  if (kind === 'delay') {
    const [, delayMs, matcher] = /^(\d+) ms, (.+)$/.exec(inside) ?? []
    if (matcher === undefined) throw new UsageError(`"${text}" is no delay, such as delay(250 ms, stats)`)
    return delayFilter(parseMatcher(matcher), clock, Number(delayMs))
  }
  const [, point, matcher] = /^(before|after) (.+)$/.exec(inside) ?? []
  if (matcher === undefined) throw new UsageError(`"${text}" does not say whether before or after the call`)
  const filter = kind === 'error' ? errorFilter : hangFilter
  return filter(parseMatcher(matcher), point as FaultPoint)
}

function parseMatcher(text: string): CallMatcher {
  const [, count, first] = /^first (\d+) of (.+)$/.exec(text) ?? []
  if (first !== undefined) return firstCalls(Number(count), parseMatcher(first))
  const [, number, nth] = /^(\d+)(?:st|nd|rd|th) of (.+)$/.exec(text) ?? []
  if (nth !== undefined) return nthCall(Number(number), parseMatcher(nth))
  if (text === 'any') return onAnyMethod()
  return onMethod(...text.split('|').map(parseMethod))
}

function parseMethod(name: string): DriverMethod {
  if (isDriverMethod(name)) return name
  throw new UsageError(`a driver has no method ${name}`)
}
