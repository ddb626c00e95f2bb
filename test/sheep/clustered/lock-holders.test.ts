import { expect, it } from 'vitest'
import { RESULT } from '../../../src/protocol/constants.ts'
import { dataOid } from '../../../src/protocol/oid.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { ClusterState } from '../../../src/sheep/cluster-state.ts'
import { LockHolders } from '../../../src/sheep/clustered/lock-holders.ts'
import type { Vdi } from '../../../src/sheep/entries.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import type { SheepClient } from '../../../src/sheep/server.ts'
import { lockRequest } from './foreign-connection.ts'

const HERE = '10.0.0.1'
const VDI: Vdi = {
  vid: 7,
  name: 'a',
  tag: '',
  snapId: 1,
  parentVid: 0,
  family: 7,
  sizeBytes: BLOCK_BYTES,
  copies: 1,
  createdAt: 5,
  snapshotAt: 0,
  deleting: false,
}

it('a node that missed so much that it got the whole state takes a lock that is gone for one that another client has had', () => {
  const state = new ClusterState()
  const holders = new LockHolders({ state, address: `${HERE}:7000`, gatewayOf: () => null, ask: async () => false })
  let index = 0
  const apply = (entry: Parameters<ClusterState['apply']>[1]) => {
    state.apply(++index, entry)
    holders.applied(entry)
  }
  const client = { peer: `${HERE}:50000` } as SheepClient
  const written = { opcode: OP.WRITE_OBJ, oid: dataOid(VDI.vid, 0), offset: 0, body: Buffer.alloc(BLOCK_BYTES) }
  const lock = { name: VDI.name, shared: false, hosts: [HERE] }
  apply({ type: 'vdi', vdi: VDI })
  apply({ type: 'lock', lock })
  holders.asked(lockRequest(VDI.name), client, () => [client])?.({ result: RESULT.SUCCESS })
  apply({
    type: 'state',
    entries: [
      { type: 'vdi', vdi: VDI },
      { type: 'lock', lock },
    ],
  })
  expect(holders.mayChange(written, client)).toBe(true)
  apply({ type: 'state', entries: [{ type: 'vdi', vdi: VDI }] })
  expect(holders.mayChange(written, client)).toBe(false)
})
