import type { Clock } from '../../runtime/clock.ts'
import type { Random } from '../../runtime/random.ts'
import { type JoinGroup, MESSAGE_BYTES_MAX } from './group.ts'

/** The group of one: it has no engine, so nothing is ever lost, and no votes. */
export function joinSingle({ clock, random }: { clock: Clock; random: Random }): JoinGroup {
  return async (listener) => {
    const self = random.uuid()
    let hasLeft = false
    const later = (tell: () => void) =>
      clock.afterInput(() => {
        if (!hasLeft) tell()
      })
    later(() => listener.configured({ id: self, members: [self] }))
    return {
      self,
      send: (message) => {
        const copy = Buffer.from(message)
        if (copy.length <= MESSAGE_BYTES_MAX) later(() => listener.delivered(self, copy))
      },
      leave: async () => {
        hasLeft = true
      },
    }
  }
}
