import { StoreError } from '../../errors.ts'
import { ATTR_FLAG, RESULT } from '../../protocol/constants.ts'
import { encodeTime } from '../../protocol/inode.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { oidIndex, oidVid } from '../../protocol/oid.ts'
import type { Field } from '../../protocol/struct.ts'
import { vdiAttr } from '../../protocol/structs.ts'
import { type Attribute, attributeOid } from '../attributes.ts'
import { bodyOfLength, cString } from '../request-body.ts'
import type { Reply } from '../server.ts'
import type { Sheep } from '../sheep.ts'
import type { VdiName } from '../vdi-store.ts'

/**
 * GET_VDI_ATTR, which also sets and removes. The body is a whole vdi_attr; the answer names the object that holds the value, which
 * the client then reads with READ_OBJ.
 */
export async function attributeRequest(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  const { which, key, value } = decodeAttribute(request)
  const flags = request.flags ?? 0
  if (flags & ATTR_FLAG.DELETE) return attributeReply(await sheep.attributes.remove(which, key))
  if (flags & ATTR_FLAG.CREATE) {
    const exclusive = (flags & ATTR_FLAG.EXCLUSIVE) !== 0
    return attributeReply(await sheep.attributes.set(which, key, value, exclusive))
  }
  return attributeReply(sheep.attributes.get(which, key))
}

/** An attribute's object as clients read it: a vdi_attr with the names it has now. Null when there is none. */
export async function attributeObject(sheep: Sheep, oid: bigint): Promise<Buffer | null> {
  for (;;) {
    const found = sheep.state.attributes.byOid(oid)
    if (!found) return null
    const value = await sheep.attributes.read(found.attribute)
    // Set again while it was read: its length may have become another.
    if (sheep.state.attributes.byOid(oid)?.attribute !== found.attribute) continue
    const vdi = sheep.state.get(found.vid)
    return vdiAttr.encode({
      name: vdi.name,
      tag: vdi.tag,
      snapId: vdi.snapshotAt > 0 ? vdi.snapId : 0,
      ctime: encodeTime(found.attribute.createdAt),
      key: found.attribute.key,
      valueLength: value.length,
      value,
    })
  }
}

function decodeAttribute(request: SheepRequest): { which: VdiName; key: string; value: Buffer } {
  const body = bodyOfLength(request, vdiAttr.sizeBytes)
  const textOf = ({ offset, sizeBytes }: Field<string>) => cString(body, offset, offset + sizeBytes)
  const { name, tag, key } = vdiAttr.fields
  const { snapId, valueLength, value } = vdiAttr.decode(body)
  if (valueLength > value.length) throw new StoreError('InvalidParameters', 'the value is longer than its field')
  return {
    which: { name: textOf(name), tag: textOf(tag), snapId },
    key: textOf(key),
    value: value.subarray(0, valueLength),
  }
}

function attributeReply(attribute: Attribute): Reply {
  const oid = attributeOid(attribute)
  return { result: RESULT.SUCCESS, vdiId: oidVid(oid), attrId: oidIndex(oid) }
}
