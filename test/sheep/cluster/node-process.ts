import { systemClock } from '../../../src/runtime/clock.ts'
import { systemHttpPoster } from '../../../src/runtime/http-poster.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { joinCorosync } from '../../../src/sheep/cluster/corosync.ts'
import { joinEtcd } from '../../../src/sheep/cluster/etcd.ts'
import { parseEtcdUrl } from '../../../src/sheep/cluster/etcd-client.ts'
import type { JoinGroup } from '../../../src/sheep/cluster/group.ts'
import type { Told } from './group-history.ts'
import { type Burst, LocalMember } from './group-member.ts'

/**
 * A program with members of groups, as its parent orders; `argv` says by which engine. Each member has a number of the parent's.
 */
export type Order = { member: number } & (
  | { do: 'join'; cluster: string }
  | { do: 'send'; burst: Burst }
  | { do: 'leave' }
  | { do: 'measure' }
)

export type Answer = { member: number } & (
  | { did: 'join'; self: string }
  | { did: 'tell'; told: Told[] }
  | { did: 'leave'; misuses: readonly string[] }
  | { did: 'measure'; residentBytes: number; misuses: readonly string[] }
  | { did: 'fail'; reason: string }
)

export type Engine = { name: 'corosync' } | { name: 'etcd'; place: string }

const engine: Engine = JSON.parse(process.argv[2]!)
const members = new Map<number, LocalMember>()
const untold = new Map<number, Told[]>()

function joinBy(cluster: string): JoinGroup {
  const ports = { clock: systemClock, random: systemRandom }
  switch (engine.name) {
    case 'corosync':
      return joinCorosync({ ...ports, cluster })
    case 'etcd': {
      const place = parseEtcdUrl(`${engine.place}/${cluster}`)
      return joinEtcd({ ...ports, place, http: systemHttpPoster(), joinMs: 3000 })
    }
  }
}

const answer = (message: Answer) => process.send!(message)

/** In batches, or the parent would have to take thousands of little messages. */
function tell(member: number, event: Told): void {
  const batch = untold.get(member)
  if (batch !== undefined) return void batch.push(event)
  untold.set(member, [event])
  setImmediate(() => {
    answer({ member, did: 'tell', told: untold.get(member)! })
    untold.delete(member)
  })
}

async function obey(order: Order): Promise<void> {
  const { member } = order
  switch (order.do) {
    case 'join': {
      const joined = await LocalMember.join(joinBy(order.cluster), (event) => tell(member, event))
      members.set(member, joined)
      return void answer({ member, did: 'join', self: joined.self })
    }
    case 'send':
      return members.get(member)!.send(order.burst)
    case 'leave':
      await members.get(member)!.leave()
      return void answer({ member, did: 'leave', misuses: members.get(member)!.misuses })
    case 'measure':
      answer({
        member,
        did: 'measure',
        residentBytes: process.memoryUsage.rss(),
        misuses: members.get(member)!.misuses,
      })
  }
}

process.on('message', (order: Order) => {
  obey(order).catch((error: Error) => answer({ member: order.member, did: 'fail', reason: error.stack! }))
})
process.on('disconnect', () => process.exit())
