import type { Clock } from '../runtime/clock.ts'
import { within } from '../runtime/within.ts'
import type { ControlCaller } from './socket-client.ts'

const TIMEOUT_MS = 2000

/** Null when the node answers, else why it is not of use, for people. */
export async function whyNoAnswer(control: ControlCaller, clock: Clock): Promise<string | null> {
  const answer = control.call('ping', {}).then(
    () => null,
    (error: Error) => `The store cannot be reached: ${error.message}`,
  )
  return within(clock, TIMEOUT_MS, answer, () => 'The store does not answer.')
}
