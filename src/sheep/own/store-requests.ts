import { StoreError } from '../../errors.ts'
import { RESULT, VDI_NAME_SIZE_BYTES, VDI_TAG_SIZE_BYTES } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import type { ExportRight, Vdi } from '../entries.ts'
import { findVdi, vdiReply } from '../foreign/vdi-requests.ts'
import { bodyOf, bodyOfLength, cString, parseObject } from '../request-body.ts'
import type { Reply } from '../server.ts'
import type { Sheep } from '../sheep.ts'

/** Collie's own requests about VDIs, export rights and the store as a whole. Answers with more than a few fields are JSON. */

const SUCCESS: Reply = { result: RESULT.SUCCESS }

export async function snapshotVdi(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  const tag = cString(bodyOf(request), 0, bodyOf(request).length)
  const { vid, sizeBytes } = await sheep.snapshot(request.vid ?? 0, tag)
  return { ...SUCCESS, vdiId: vid, vdiSize: sizeBytes }
}

export async function snapshotVdis(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  await sheep.snapshotTogether(parseSnapshots(bodyOf(request)))
  return SUCCESS
}

export async function renameVdi(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  const [tagAt, toAt] = [VDI_NAME_SIZE_BYTES, VDI_NAME_SIZE_BYTES + VDI_TAG_SIZE_BYTES]
  const body = bodyOfLength(request, toAt + VDI_NAME_SIZE_BYTES)
  const name = cString(body, 0, tagAt)
  const tag = cString(body, tagAt, toAt)
  const to = cString(body, toAt, body.length)
  if (tag === '') await sheep.renameVdi(name, to)
  else await sheep.retag(sheep.state.find(name, { tag }).vid, to)
  return SUCCESS
}

export async function resizeVdi(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  await sheep.resizeVdi(request.vid ?? 0, request.vdiSize ?? 0)
  return SUCCESS
}

export async function rollbackVdi(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  const snapshot = findVdi(sheep, request)
  return vdiReply(await sheep.rollbackVdi(sheep.state.find(snapshot.name).vid, snapshot.vid))
}

export function listVdis(sheep: Sheep, request: SheepRequest): Reply {
  return json(request.body ? sheep.state.vdis.of(request.body.toString()) : vdisAfter(sheep, request.vid ?? 0))
}

export function listAttributes(sheep: Sheep, request: SheepRequest): Reply {
  const { vid } = findVdi(sheep, { ...request, snapId: request.vid ?? 0 })
  return json(sheep.state.attributes.of(vid).map(({ key, valueBytes, createdAt }) => ({ key, valueBytes, createdAt })))
}

export function listLocks(sheep: Sheep): Reply {
  return json([...sheep.state.locks.values()])
}

export async function unlockVdi(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  await sheep.unlock(bodyOf(request).toString())
  return SUCCESS
}

export async function putExport(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  await sheep.putExport(parseRight(bodyOf(request)))
  return SUCCESS
}

export async function limitExport(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  const { attachmentId, limits } = parseObject(bodyOf(request)) as { attachmentId?: unknown; limits?: unknown }
  if (typeof attachmentId !== 'string' || !isLimits(limits)) {
    throw new StoreError('InvalidParameters', 'not the limits of an export')
  }
  await sheep.limitExport(attachmentId, limits)
  return SUCCESS
}

export async function removeExport(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  await sheep.removeExport(bodyOf(request).toString())
  return SUCCESS
}

export function listExports(sheep: Sheep, request: SheepRequest): Reply {
  return json(sheep.state.exports.of(sheep.state.find(bodyOf(request).toString()).vid))
}

export function getExport(sheep: Sheep, request: SheepRequest): Reply {
  const right = sheep.state.exports.byHash(bodyOf(request).toString())
  if (!right) throw new StoreError('NoExport')
  return json(right)
}

export function usageOfVdis(sheep: Sheep): Reply {
  return json(sheep.ownUsage())
}

export function recoveryProgress(sheep: Sheep): Reply {
  return json(sheep.ownRecovery())
}

export async function statStore(sheep: Sheep): Promise<Reply> {
  const { totalBytes, freeBytes, provisionedBytes, sizeFactors } = await sheep.space()
  const { copies, copiesMin } = sheep
  return json({ totalBytes, freeBytes, provisionedBytes, sizeFactors, copies, copiesMin })
}

export async function alterVdi(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  const { copies, copiesMin } = parseObject(bodyOf(request)) as { copies?: unknown; copiesMin?: unknown }
  if (typeof copies !== 'number' || (copiesMin !== undefined && typeof copiesMin !== 'number'))
    throw new StoreError('InvalidParameters', 'not a number of copies')
  await sheep.alterCopies(request.vid ?? 0, { copies, ...(copiesMin !== undefined && { copiesMin }) })
  return SUCCESS
}

export async function driveStore(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  const { database, replace } = parseDrive(bodyOf(request))
  return json(await sheep.drive(database, { replace }))
}

/** Keeps an answer of LIST_VDIS well below the limit of a frame. */
const VDIS_PER_ANSWER = 4096

/** The next of all VDIs in the order of their vids. */
function vdisAfter(sheep: Sheep, vid: number): Vdi[] {
  return [...sheep.state.vdis.values()]
    .filter((vdi) => vdi.vid > vid && !vdi.deleting)
    .sort((a, b) => a.vid - b.vid)
    .slice(0, VDIS_PER_ANSWER)
}

function parseRight(body: Buffer): ExportRight {
  const { attachmentId, nameHash, vid, readOnly, limits = null } = parseObject(body) as Partial<ExportRight>
  const valid =
    typeof attachmentId === 'string' &&
    attachmentId !== '' &&
    typeof nameHash === 'string' &&
    /^[0-9a-f]{64}$/.test(nameHash) &&
    typeof vid === 'number' &&
    Number.isInteger(vid) &&
    typeof readOnly === 'boolean' &&
    isLimits(limits)
  if (!valid) throw new StoreError('InvalidParameters', 'not an export right')
  return { attachmentId, nameHash, vid, readOnly, ...(limits === null ? {} : { limits }) }
}

/** What they mean is known to gateways; here they only must not fill the log. */
const LIMITS_BYTES_MAX = 2048

function isLimits(limits: unknown): limits is object | null {
  return typeof limits === 'object' && !Array.isArray(limits) && JSON.stringify(limits).length <= LIMITS_BYTES_MAX
}

/** A group of volumes may be so large. */
const TOGETHER_MAX = 512

function parseSnapshots(body: Buffer): { name: string; tag: string }[] {
  const parsed = parseObject(body)
  const all: Partial<Record<'name' | 'tag', unknown>>[] = Array.isArray(parsed) ? parsed : []
  if (all.length === 0 || all.length > TOGETHER_MAX)
    throw new StoreError('InvalidParameters', `between 1 and ${TOGETHER_MAX} snapshots are taken together`)
  return all.map((one) => {
    const { name, tag } = one ?? {}
    if (typeof name !== 'string' || typeof tag !== 'string' || tag === '')
      throw new StoreError('InvalidParameters', 'not the name of a VDI and a tag')
    return { name, tag }
  })
}

/** Whether a database of the service may drive the store, and whether in the place of another one. */
interface DriveRequest {
  database: string
  replace: boolean
}

function parseDrive(body: Buffer): DriveRequest {
  const { database, replace } = parseObject(body) as Partial<DriveRequest>
  if (typeof database !== 'string' || !/^[0-9a-f-]{32,36}$/.test(database) || typeof replace !== 'boolean') {
    throw new StoreError('InvalidParameters', 'not the id of a database')
  }
  return { database, replace }
}

function json(value: unknown): Reply {
  return { ...SUCCESS, body: Buffer.from(JSON.stringify(value)) }
}
