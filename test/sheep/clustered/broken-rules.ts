import { ClusterState } from '../../../src/sheep/cluster-state.ts'
import { ClusterMember } from '../../../src/sheep/clustered/cluster-member.ts'
import { FamilyObjects } from '../../../src/sheep/clustered/family-objects.ts'
import { CopyHolder } from '../../../src/sheep/copies/copy-holder.ts'
import { EngineCopyStore } from '../../../src/sheep/copies/engine-copy-store.ts'
import type { CopyRequest } from '../../../src/sheep/copies/messages.ts'
import { COPY } from '../../../src/sheep/copies/wire.ts'
import { OutgoingLink } from '../../../src/sheep/peer/outgoing-link.ts'
import { Sessions } from '../../../src/sheep/session.ts'

/**
 * Rules of a cluster, and how each is broken: by what a part does instead, for as long as the process lives. The checks of ClusterModel
 * must find every one of them.
 */
export const BREAKS: Readonly<Record<string, () => void>> = {
  tails: () => {
    EngineCopyStore.prototype.tailOf = function (oid) {
      this.settle(oid) // or they would grow until no journal takes them
      return []
    }
  },
  seal: () => {
    lateRequestsArrive()
    const epochs = new WeakMap<CopyHolder, number>()
    const { viewChanged } = CopyHolder.prototype
    CopyHolder.prototype.viewChanged = function (epoch) {
      epochs.set(this, Math.max(epoch, epochs.get(this) ?? 0))
      viewChanged.call(this, epoch)
    }
    answerInstead((holder, request) =>
      request.generation.epoch < (epochs.get(holder) ?? 0) ? request : ofAnyGeneration(request),
    )
  },
  epoch: () => {
    lateRequestsArrive()
    answerInstead((_holder, request) => ofAnyGeneration(request))
  },
  lease: () => {
    ClusterMember.prototype.mayAct = () => true
  },
  drain: () => {
    Sessions.prototype.endUnder = async () => {}
  },
  predecessor: () => {
    linksLoseFromTheMiddle()
    EngineCopyStore.prototype.isAt = () => true
  },
  'past-views': () => {
    const { viewsOf } = ClusterState.prototype
    ClusterState.prototype.viewsOf = function (family) {
      return viewsOf.call(this, family).map((view) => ({ ...view, members: this.view.members }))
    }
  },
  tombstones: () => {
    nobodyIsAskedForTheUnnamed()
    EngineCopyStore.prototype.remove = function (oid, _version, done) {
      this.drop(oid, done)
    }
  },
  sync: () => {
    const { apply } = EngineCopyStore.prototype
    EngineCopyStore.prototype.apply = function (write, _durable, done) {
      apply.call(this, write, false, done)
    }
  },
}

/** Links end when their peer is silent, which keeps most of what an owner has sent in vain from those who might believe it. */
function lateRequestsArrive(): void {
  OutgoingLink.prototype.tick = () => {}
}

/** A link that has lost a request of an epoch carries no more of that epoch, which keeps gaps from those who look for them. */
function linksLoseFromTheMiddle(): void {
  Object.assign(COPY, { epochOf: undefined })
}

/** What is on a disk and in no map goes, which is how the copies of who was away are gone that nobody else has a tombstone for. */
function nobodyIsAskedForTheUnnamed(): void {
  FamilyObjects.prototype.objectsOf = async () => ({ oids: [], areAll: true })
}

function answerInstead(of: (holder: CopyHolder, request: CopyRequest) => CopyRequest): void {
  const { answer } = CopyHolder.prototype
  CopyHolder.prototype.answer = function (request, reply) {
    const isSealing = request.type === 'open' || request.type === 'look'
    answer.call(this, isSealing ? request : of(this, request), reply)
  }
}

/** As if it came from the newest of all owners. */
const ofAnyGeneration = (request: CopyRequest): CopyRequest => ({
  ...request,
  generation: { epoch: Number.MAX_SAFE_INTEGER, index: Number.MAX_SAFE_INTEGER, incarnation: '~' },
})
