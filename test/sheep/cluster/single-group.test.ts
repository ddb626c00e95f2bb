import { describe } from 'vitest'
import { systemClock } from '../../../src/runtime/clock.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { joinSingle } from '../../../src/sheep/cluster/single-group.ts'
import { skipUnless } from '../../tools/require-command.ts'
import { groupContract } from './group-contract.ts'
import { LocalMember } from './group-member.ts'
import { untilDeadline } from './until.ts'

describe('the group of one', () => {
  const stage = {
    nodes: ['only'],
    join: () => LocalMember.join(joinSingle({ clock: systemClock, random: systemRandom })),
    until: untilDeadline,
  }
  groupContract(skipUnless(false), () => stage, [])
})
