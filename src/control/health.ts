import type { Clock } from '../runtime/clock.ts'
import type { ControlCaller } from './socket-client.ts'

const TIMEOUT_MS = 2000

/** Null when the node answers, else why it is not of use, for people. */
export async function whyNoAnswer(control: ControlCaller, clock: Clock): Promise<string | null> {
  const tooLate = clock.sleep(TIMEOUT_MS).then(() => 'The store does not answer.')
  const answer = control.call('ping', {}).then(
    () => null,
    (error: Error) => `The store cannot be reached: ${error.message}`,
  )
  return Promise.race([answer, tooLate])
}
