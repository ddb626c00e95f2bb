import { StoreError } from '../../errors.ts'
import { dataOid, formatOid, inodeOid, oidIndex, oidKind, oidVid } from '../../protocol/oid.ts'
import type { Clock } from '../../runtime/clock.ts'
import { within } from '../../runtime/within.ts'
import type { ClusterState } from '../cluster-state.ts'
import { ALL_BLOCKS, type Blocks, countBlocks, intersect, subtract, toBlocks } from '../copies/block-ranges.ts'
import type { CopyComparison } from '../copies/copy-comparison.ts'
import type { BlockRange } from '../copies/copy-store.ts'
import type { Vdi } from '../entries.ts'
import type { Problem } from '../maintenance/audit.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../object-format.ts'
import type { ReplicatedFamily } from '../replicated/replicated-family.ts'
import type { ObjectLayout } from '../replicated/replicated-objects.ts'
import type { FamilyObjects } from './family-objects.ts'
import type { Told } from './node-questions.ts'

export interface FamilyAuditOptions {
  family: number
  objects: FamilyObjects
  vdis: ReplicatedFamily
  state: ClusterState
  clock: Clock
  /** How a node is called in findings. */
  addressOf(node: string): string
  repair: boolean
}

/** Of a family there are told so many. */
const PROBLEMS_MAX = 100
/** A megabyte of each copy at once. */
const BLOCKS_AT_ONCE = 256
const ATTEMPTS = 5
const RETRY_MS = 200
/** An object that nobody says anything of for so long cannot be read by anybody else either. */
const PATIENCE_MS = 20_000

/**
 * Holds all copies of a family's objects against each other and against the maps, by the owner of the family, beside whatever else is
 * done with it. All that maps name must be there, on every node that should have it, readable, and the same everywhere; what no map
 * names is not to be there. What is written all the while is not compared, and counted as such.
 */
export class FamilyAudit {
  readonly #options: FamilyAuditOptions
  readonly #report: Told<'audit_family'> = {
    objects: 0,
    blocks: 0,
    accounts: 0,
    busy: 0,
    problems: [],
    problemsTotal: 0,
  }
  /** Which objects are named, and by which VDIs. */
  readonly #named = new Map<bigint, Vdi[]>()
  /** Which blocks of these somebody looks for there, or below. */
  readonly #wanted = new Map<bigint, Blocks>()
  /** Those of which there is a copy. */
  readonly #found = new Set<bigint>()

  constructor(options: FamilyAuditOptions) {
    this.#options = options
  }

  async run(): Promise<Told<'audit_family'>> {
    const { state, family } = this.#options
    const vdis = state.vdis.ofFamily(family).filter(({ deleting }) => !deleting)
    for (const vdi of vdis) await this.#findNamed(vdi)
    for (const [oid, by] of this.#named) await this.#checkObject(oid, by)
    for (const vdi of vdis) await this.#checkOrphans(vdi)
    await this.#checkAccounts()
    return this.#report
  }

  /** Some blocks of one object, which a node has found that it cannot read. */
  async mend(oid: bigint, blocks: Blocks): Promise<Told<'mend_object'>> {
    const by = await this.#seenBy(oid)
    for (const vdi of by) this.#nameBy(oid, vdi)
    if (by.length > 0 || this.#isMapOfDeleted(oid)) await this.#checkBlocks(oid, by, blocks)
    return this.#report
  }

  /** It is there as long as others read what that VDI had, and nobody looks into it. */
  #isMapOfDeleted(oid: bigint): boolean {
    return oidKind(oid) === 'inode' && this.#options.state.vdis.get(oidVid(oid))?.deleting === true
  }

  /** The VDIs that read an object, or through it. */
  async #seenBy(oid: bigint): Promise<Vdi[]> {
    const { state, family, vdis } = this.#options
    const seenBy: Vdi[] = []
    for (const vdi of state.vdis.ofFamily(family)) {
      if (vdi.deleting) continue
      if (oidKind(oid) !== 'data') {
        if (vdi.vid === oidVid(oid)) seenBy.push(vdi)
        continue
      }
      const index = oidIndex(oid)
      const vid = await vdis.mapOf(vdi.vid).lookup(index)
      let at = vid === 0 ? null : dataOid(vid, index)
      let wanted: Blocks = ALL_BLOCKS
      while (at !== null && at !== oid) {
        const layout = await this.#layoutOf(at)
        wanted = intersect(wanted, layout?.inherited ?? [])
        at = wanted.length > 0 ? layout!.base : null // what nobody sees may be gone
      }
      if (at !== null) seenBy.push(vdi)
    }
    return seenBy
  }

  /** Null when it is gone, or nobody says anything of it. */
  #layoutOf(oid: bigint): Promise<ObjectLayout | null> {
    const { objects, clock } = this.#options
    return within(clock, PATIENCE_MS, objects.layoutOf(oid), () => null).catch(() => null)
  }

  #add(problem: Problem): void {
    this.#report.problemsTotal++
    if (this.#report.problems.length < PROBLEMS_MAX) this.#report.problems.push(problem)
  }

  async #findNamed(vdi: Vdi): Promise<void> {
    const { vdis } = this.#options
    this.#nameBy(inodeOid(vdi.vid), vdi)
    for (const oid of vdis.machineState.objectsOf(vdi.vid)) this.#nameBy(oid, vdi)
    for await (const { index, vid } of vdis.mapOf(vdi.vid).entries(Math.ceil(vdi.sizeBytes / OBJECT_BYTES)))
      this.#nameBy(dataOid(vid, index), vdi)
  }

  #nameBy(oid: bigint, vdi: Vdi): void {
    const by = this.#named.get(oid)
    this.#wanted.set(oid, ALL_BLOCKS)
    if (by) by.push(vdi)
    else this.#named.set(oid, [vdi])
  }

  async #checkObject(oid: bigint, by: readonly Vdi[]): Promise<void> {
    if (!(await this.#checkBlocks(oid, by, ALL_BLOCKS))) return
    this.#found.add(oid)
    await this.#followBase(oid, by, this.#wanted.get(oid)!)
  }

  /** False when there is no such object. */
  async #checkBlocks(oid: bigint, by: readonly Vdi[], blocks: Blocks): Promise<boolean> {
    this.#report.objects++
    for (const range of blocks.flatMap(partsOf)) {
      const compared = await this.#compare(oid, range)
      if (compared === 'gone') return false
      if (compared === 'missing') {
        this.#reportDamage('missing_object', `no copy of ${formatOid(oid)}`, oid, by, [range])
        return false
      }
      if (compared === 'busy') this.#report.busy += 1
      else await this.#judge(oid, by, compared)
    }
    return true
  }

  async #compare(oid: bigint, range: BlockRange): Promise<CopyComparison | 'busy' | 'missing' | 'gone'> {
    const { objects, clock } = this.#options
    const endMs = clock.monotonicMs() + PATIENCE_MS
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      try {
        const compare = objects.of(oidVid(oid)).compare(oid, range)
        const compared = await within(clock, endMs - clock.monotonicMs(), compare, () => 'missing' as const)
        if (compared !== null) return compared
      } catch (error) {
        // A write since the map was read has taken it out, or it was never there: the map says.
        if (!(error instanceof StoreError) || error.code !== 'NoObject') throw error
        return (await this.#isNamed(oid)) ? 'missing' : 'gone'
      }
      await clock.sleep(RETRY_MS * attempt)
    }
    return 'busy'
  }

  async #judge(oid: bigint, by: readonly Vdi[], { checked, lacking, lost, different }: CopyComparison): Promise<void> {
    const { addressOf, repair } = this.#options
    this.#report.blocks += checked
    if (lost.length > 0) this.#reportDamage('corrupt_block', `${formatOid(oid)} is rotten in all copies`, oid, by, lost)
    if (different.length > 0)
      this.#reportDamage('different_copies', `copies of ${formatOid(oid)} differ`, oid, by, different)
    if (lacking.length === 0) return
    const isRepaired = repair && (await this.#fill(oid))
    for (const { node, blocks } of lacking) {
      const detail = `${countBlocks(blocks)} blocks of ${formatOid(oid)} are not readable on ${addressOf(node)}`
      this.#add({ kind: 'missing_copy', detail, where: null, isRepaired })
    }
  }

  /** Brings what there is to where it belongs. */
  async #fill(oid: bigint): Promise<boolean> {
    const sequencer = this.#options.objects.of(oidVid(oid))
    try {
      while ((await sequencer.fill(oid, BLOCKS_AT_ONCE)) !== null);
    } catch (error) {
      if (!(error instanceof StoreError) || error.code === 'OldEpoch') throw error
      return false
    }
    return sequencer.isComplete(oid)
  }

  /** What these blocks are inherited from has to be there as well; it may be of a VDI that was deleted. */
  async #followBase(oid: bigint, by: readonly Vdi[], blocks: Blocks): Promise<void> {
    if (oidKind(oid) !== 'data') return
    const layout = await this.#layoutOf(oid)
    if (!layout || layout.base === null) return
    const { base } = layout
    const known = this.#wanted.get(base) ?? []
    const wanted = subtract(intersect(blocks, layout.inherited), known)
    if (wanted.length === 0) return
    this.#wanted.set(base, toBlocks([...known, ...wanted]))
    if (!this.#named.has(base))
      this.#named.set(base, [...by]) // looked at in its turn
    else if (this.#found.has(base)) await this.#followBase(base, by, wanted)
  }

  #reportDamage(kind: Problem['kind'], detail: string, oid: bigint, by: readonly Vdi[], blocks: Blocks): void {
    const isMap = oidKind(oid) === 'inode'
    if (oidKind(oid) === 'vmstate') return this.#add({ kind, detail, where: null, isRepaired: false })
    for (const vdi of by) {
      for (const { first, count } of blocks) {
        const unitBytes = isMap ? (BLOCK_BYTES / 4) * OBJECT_BYTES : BLOCK_BYTES
        const offsetBytes = (isMap ? 0 : oidIndex(oid) * OBJECT_BYTES) + first * unitBytes
        const lengthBytes = Math.min(count * unitBytes, vdi.sizeBytes - offsetBytes)
        if (lengthBytes <= 0) continue
        const snapshot = vdi.snapshotAt > 0 ? vdi.tag || `#${vdi.snapId}` : ''
        this.#add({ kind, detail, where: { vdi: vdi.name, snapshot, offsetBytes, lengthBytes }, isRepaired: false })
      }
    }
  }

  /** Objects of a VDI that its map does not name, though nothing is being done to them. */
  async #checkOrphans({ vid }: Vdi): Promise<void> {
    const { objects, vdis, repair } = this.#options
    for (const oid of (await objects.objectsOf(vid)).oids) {
      if (oidKind(oid) === 'inode' || this.#named.has(oid)) continue
      if (!(await vdis.isOrphan(oid))) continue
      if (repair) await vdis.removeOrphan(oid)
      this.#add({
        kind: 'orphan_object',
        detail: `${formatOid(oid)} is named by ${oidKind(oid) === 'data' ? 'no map' : 'nobody'}`,
        where: null,
        isRepaired: repair,
      })
    }
  }

  /** What VDIs are said to take. Where objects cannot be read, which is told by itself, there is nothing to compare. */
  async #checkAccounts(): Promise<void> {
    const { vdis, repair } = this.#options
    if (this.#report.problemsTotal > 0) return
    const { compared, wrong } = await vdis.auditAccounts(repair)
    this.#report.accounts += compared
    for (const { vdi, said, counted } of wrong) {
      const name = vdi.snapshotAt > 0 ? `${vdi.name}@${vdi.tag || `#${vdi.snapId}`}` : vdi.name
      const detail = `${name}: the account says ${said} blocks, ${counted} were counted`
      this.#add({ kind: 'wrong_account', detail, where: null, isRepaired: repair })
    }
  }

  async #isNamed(oid: bigint): Promise<boolean> {
    const { vdis, state } = this.#options
    for (const { vid } of this.#named.get(oid) ?? []) {
      if (oidKind(oid) === 'inode') return state.vdis.get(vid)?.deleting === false
      if (oidKind(oid) === 'vmstate') return vdis.machineState.has(oid) && state.vdis.get(vid)?.deleting === false
      if ((await vdis.mapOf(vid).lookup(oidIndex(oid))) === oidVid(oid)) return true
    }
    return false
  }
}

/** Ranges of which as many blocks are compared at once. */
function partsOf({ first, count }: BlockRange): BlockRange[] {
  const parts: BlockRange[] = []
  for (let at = 0; at < count; at += BLOCKS_AT_ONCE)
    parts.push({ first: first + at, count: Math.min(BLOCKS_AT_ONCE, count - at) })
  return parts
}
