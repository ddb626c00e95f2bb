import type { Member } from '../membership/view.ts'
import {
  ALL_BLOCKS,
  allBut,
  type Blocks,
  intersect,
  joinContents,
  piecesOf,
  rangeOf,
  subtract,
  toBlocks,
} from './block-ranges.ts'
import { type BlockContents, type BlockRange, copyWrite } from './copy-store.ts'
import type { Holders } from './holders.ts'
import { writtenApart } from './lineage.ts'
import type { CopyResults } from './messages.ts'
import type { News } from './news.ts'
import type { ObjectWrites } from './object-writes.ts'
import type { OwnedObject } from './owned-object.ts'
import {
  aheadOf,
  baseOf,
  findAuthority,
  isSomebodyUnheard,
  isThere,
  isUsable,
  lackedBlocks,
  type Report,
  salvage,
  thatCount,
  withOneCleanName,
} from './reconcile.ts'
import { isSameVersion, type Version } from './version.ts'
import type { WriteVersions } from './write-versions.ts'

export interface ObjectOpenerOptions {
  holders: Holders
  versions: WriteVersions
  news: News
  writes: ObjectWrites
}

/** What a copy keeps. */
interface Plan {
  report: Report
  kind: 'full' | 'partial'
  valid: Blocks
}

type Reports = Map<bigint, Report[]> | null

/** Objects opened by one request. */
const BATCH_MAX = 256
/** What is put into a copy at once: a journal takes it in one piece. */
const FILL_BLOCKS = 256

/**
 * Opens objects: all who may have a copy seal it against older generations and say what they have; every view that may have
 * acknowledged something is covered; the copies are brought to the best of them, under a version of their own, and what writes
 * under way have left at some of them is at all of them. Until that is so it is tried again, with all that is news.
 */
export class ObjectOpener {
  readonly #options: ObjectOpenerOptions
  #batch: { objects: OwnedObject[]; reports: Promise<Reports> } | null = null

  constructor(options: ObjectOpenerOptions) {
    this.#options = options
  }

  /** Resolves when the object is open. Throws OldEpoch. */
  async opened(object: OwnedObject): Promise<void> {
    const { holders } = this.#options
    while (!object.isOpen || holders.isEnded) {
      holders.throwIfEnded()
      object.opening ??= this.#open(object).finally(() => {
        object.opening = null
      })
      await object.opening
    }
  }

  /** Resolves when the object is open, and what is in its copies is what it is. Throws OldEpoch. */
  async decided(object: OwnedObject): Promise<void> {
    await this.opened(object)
    while (object.isUndecided) {
      object.deciding ??= this.#decide(object).finally(() => {
        object.deciding = null
      })
      await object.deciding
      await this.opened(object)
    }
  }

  async #decide(object: OwnedObject): Promise<void> {
    const { holders, versions, news } = this.#options
    const { term } = object
    while (object.pending.length > 0) await object.quiet(ALL_BLOCKS) // the version of a write does as well
    if (object.term !== term || !object.isUndecided) return
    const { next } = news
    const version = versions.next(holders.generation)
    object.version = version
    const answers = await Promise.all(
      [...object.acting.values()].map(({ member, missing }) => {
        const adoption = { oid: object.oid, version, kind: 'full' as const, valid: allBut(missing) }
        return holders.ask(member, { type: 'adopt', adoption })
      }),
    )
    versions.finish(version)
    if (object.term !== term) return
    if (answers.some((answer) => answer?.refused !== null)) {
      await news.wait(next)
      if (object.term === term) object.close()
      return
    }
    object.isUndecided = false
    if (object.pending.length > 0) return // of these the tails have to know
    for (const { member } of object.acting.values()) void holders.ask(member, { type: 'settle', oid: object.oid })
  }

  /** For writes under way, which learn of a failure by themselves. */
  reopen(object: OwnedObject): void {
    object.close()
    this.opened(object).catch(() => {})
  }

  async #open(object: OwnedObject): Promise<void> {
    const { holders, news } = this.#options
    while (!object.isOpen && !holders.isEnded) {
      const { next } = news
      const { epoch } = holders
      const { term } = object
      const reports = await this.#collect(object)
      const isStill = () => epoch === holders.epoch && term === object.term && !holders.isEnded
      if (reports && isStill() && (await this.#bringTogether(object, reports, isStill))) return
      if (isStill()) await news.wait(next)
    }
  }

  /** What all holders say of an object, asked together with others; null when one of them does not say anything. */
  async #collect(object: OwnedObject): Promise<readonly Report[] | null> {
    if (!this.#batch || this.#batch.objects.length === BATCH_MAX) {
      const objects: OwnedObject[] = []
      const reports = Promise.resolve().then(() => {
        if (this.#batch?.objects === objects) this.#batch = null
        return this.#askHolders(objects)
      })
      this.#batch = { objects, reports }
    }
    this.#batch.objects.push(object)
    return (await this.#batch.reports)?.get(object.oid) ?? null
  }

  async #askHolders(objects: readonly OwnedObject[]): Promise<Reports> {
    const { holders } = this.#options
    const wanted = new Map<Member, bigint[]>()
    for (const { oid } of objects)
      for (const member of holders.possible(oid)) wanted.set(member, [...(wanted.get(member) ?? []), oid])
    const reports = new Map<bigint, Report[]>(objects.map(({ oid }) => [oid, []]))
    const answers = await Promise.all(
      [...wanted].map(async ([member, oids]) => ({
        member,
        answer: await holders.ask(member, { type: 'open', oids }),
      })),
    )
    for (const { member, answer } of answers) {
      if (!answer || answer.refused) return null
      const { copies, lostThroughEpoch } = answer.result as CopyResults['open']
      for (const copy of copies) reports.get(copy.oid)?.push({ ...copy, member, lostThroughEpoch })
    }
    return reports
  }

  /** Makes the copies one object again. False when that has to wait for what is not here. */
  async #bringTogether(object: OwnedObject, heard: readonly Report[], isStill: () => boolean): Promise<boolean> {
    const { holders, versions } = this.#options
    const { oid } = object
    const views = holders.placedViews(oid)
    const said = withOneCleanName(views, heard)
    const found = object.exists ? findAuthority(views, said) : 'removed'
    const saved = found ? null : salvage(views, said)
    const reports = saved ?? said
    const best = saved ? findAuthority(views, saved) : found
    if (best === 'removed') {
      // Who asked for it looked before it was. Whatever anybody has is left of that, or of an attempt to make it.
      object.exists = false
      const made = reports.filter(({ state, member }) => isThere(state) || holders.isTarget(oid, member))
      const plans = made.map((report): Plan => ({ report, kind: 'full', valid: ALL_BLOCKS }))
      object.isUndecided = false
      return this.#begin(object, null, plans, isStill)
    }
    const authority = best && (await this.#complete(best, thatCount(views, reports), isStill))
    if (!authority || !isStill()) return false
    const all = reports.map((report) => (report === best ? authority : report))
    const plans = await this.#plan(object, all, authority)
    if (!plans || !isStill()) return false
    const isOne =
      !saved &&
      plans.every(
        ({ report: { state } }) => state?.kind === 'full' && isSameVersion(state.version, authority.state!.version),
      )
    let version = authority.state!.version
    if (!isOne) {
      version = versions.next(holders.generation)
      const areAdopted = await this.#adopt(plans, version)
      if (!areAdopted || !isStill()) return false
      const areEqual = await this.#fillTails(object, plans, authority, isStill)
      if (!areEqual || !isStill()) return false
      versions.finish(version)
    }
    for (const { report } of plans)
      if (!isOne || report.tail.length > 0) void holders.ask(report.member, { type: 'settle', oid })
    object.isUndecided = isOne && isSomebodyUnheard(views, reports)
    return this.#begin(object, version, plans, isStill)
  }

  /**
   * Brings to the best whole copy what a partial one has that is newer: such writes may have been acknowledged, when the whole one
   * has lost power since. By a write, so that there is a whole copy at every moment. Null when that does not come about.
   */
  async #complete(best: Report, reports: readonly Report[], isStill: () => boolean): Promise<Report | null> {
    const { holders, versions } = this.#options
    const ahead = aheadOf(best, reports)
    if (!ahead) return best
    const { oid, member, tail } = best
    const state = best.state!
    const changed = await holders.ask(ahead.member, { type: 'blocks-since', oid, since: state.version })
    if (!changed || changed.refused || !isStill()) return null
    const newer = intersect(ahead.state!.valid, toBlocks([...ahead.tail, ...(changed.result as readonly BlockRange[])]))
    const reads = await Promise.all(newer.map((range) => holders.ask(ahead.member, { type: 'read', oid, range })))
    const parts: BlockContents[] = []
    for (const read of reads) {
      if (!read || read.refused) return null
      parts.push(read.result as BlockContents)
    }
    const contents = joinContents(parts)
    const blocks = toBlocks(contents.blocks.map(rangeOf))
    const reserved = await holders.ask(member, { type: 'reserve', oid, blocks })
    if (reserved?.refused !== null || !isStill()) return null
    const version = versions.next(holders.generation)
    const write = copyWrite({ oid, version, previous: state.version }, contents)
    const written = await holders.ask(member, { type: 'write', write, durable: true, watermark: null })
    if (written?.refused !== null) return null
    const entries = newer.map((range) => ({ ...range, version, previous: state.version }))
    return { ...best, state: { ...state, version }, tail: [...tail, ...entries] }
  }

  /** What each copy keeps; null when the authority does not say. */
  async #plan(object: OwnedObject, reports: readonly Report[], authority: Report): Promise<Plan[] | null> {
    const { holders } = this.#options
    const { oid } = object
    const plans = await Promise.all(
      reports
        .filter(({ state, member }) => isUsable(state) || holders.isTarget(oid, member))
        .map(async (report): Promise<Plan | null> => {
          if (areAlike(report, authority)) return planOf(report, [])
          const base = isUsable(report.state) ? baseOf(report) : null
          if (!base || writtenApart(report, authority)) return planOf(report, lackedBlocks(report, authority, []))
          const changed = await holders.ask(authority.member, { type: 'blocks-since', oid, since: base })
          if (!changed || changed.refused) return null
          return planOf(report, lackedBlocks(report, authority, changed.result as readonly BlockRange[]))
        }),
    )
    return plans.includes(null) ? null : (plans as Plan[])
  }

  /** All, or nobody is filled: what is filled must not meet a copy later that knows nothing of this. */
  async #adopt(plans: readonly Plan[], version: Version): Promise<boolean> {
    const { holders } = this.#options
    const answers = await Promise.all(
      plans.map(({ report: { oid, member }, kind, valid }) =>
        holders.ask(member, { type: 'adopt', adoption: { oid, version, kind, valid } }),
      ),
    )
    return answers.every((answer) => answer?.refused === null)
  }

  /** Writes under way have reached some copies: what they left there, or did not, is made the same before anybody reads it. */
  async #fillTails(
    object: OwnedObject,
    plans: readonly Plan[],
    authority: Report,
    isStill: () => boolean,
  ): Promise<boolean> {
    const { holders } = this.#options
    const { oid } = object
    const open = intersect(toBlocks(plans.flatMap(({ report }) => report.tail)), authority.state!.valid)
    for (const plan of plans) {
      for (const range of piecesOf(subtract(open, plan.valid), FILL_BLOCKS)) {
        const read = await holders.ask(authority.member, { type: 'read', oid, range })
        if (!read || read.refused || !isStill()) return false
        const contents = read.result as BlockContents
        const filled = await holders.ask(plan.report.member, { type: 'fill', oid, contents })
        if (!filled || filled.refused === 'stale') return false
        if (filled.refused === null) plan.valid = toBlocks([...plan.valid, range])
      }
    }
    return true
  }

  /** Goes on with these copies, and with what was under way. */
  #begin(
    object: OwnedObject,
    version: Version | null,
    plans: readonly Plan[],
    isStill: () => boolean,
  ): Promise<boolean> {
    object.acting.clear()
    for (const { report, valid } of plans)
      object.acting.set(report.member.node, { member: report.member, missing: allBut(valid) })
    object.version = version
    object.roomy = plans.reduce<Blocks>((roomy, { report }) => intersect(roomy, report.allocated), ALL_BLOCKS)
    object.rotten = plans.reduce<Blocks>((rotten, { valid }) => subtract(rotten, valid), ALL_BLOCKS)
    const { holders } = this.#options
    if (holders.completeEpoch === holders.epoch && !holders.areWhole(object)) holders.setbacks++ // nobody would look for it again
    return this.#options.writes.resume(object, isStill)
  }
}

/** Nothing was written to them but what both have: so it is with most objects in a view in which nothing was written to them yet. */
const areAlike = (a: Report, b: Report): boolean =>
  a.state?.kind === 'full' &&
  b.state?.kind === 'full' &&
  a.tail.length === 0 &&
  b.tail.length === 0 &&
  isSameVersion(a.state.version, b.state.version)

/** A full copy that lacks nothing remains one, though blocks of it may be rotten: it knows what they should be. */
function planOf(report: Report, lacked: Blocks): Plan {
  const { state } = report
  const valid = subtract(state?.valid ?? [], lacked)
  const isFull = (state?.kind === 'full' && lacked.length === 0) || allBut(valid).length === 0
  return { report, kind: isFull ? 'full' : 'partial', valid }
}
