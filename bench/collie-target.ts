import { randomUUID } from 'node:crypto'
import path from 'node:path'
import { systemNetwork } from '../src/runtime/network.ts'
import { VdiClient } from '../src/vdi/client.ts'
import { hashExportName } from '../src/vdi/export-name.ts'
import { createSocketTransport } from '../src/vdi/socket-transport.ts'
import { Collie } from '../test/tools/collie.ts'
import { fio } from './fio.ts'

/** Collie as it is built, with the journal that it has by default, with one VDI and a right to reach it. */
export interface CollieUnderTest {
  vdis: VdiClient
  /** Makes a VDI and returns where it is exported. */
  exportVdi(name: string, sizeBytes: number): Promise<string>
  /** Where an existing working VDI is exported. */
  exportVid(vid: number): Promise<string>
  stop(): Promise<void>
}

export async function startCollie(...flags: string[]): Promise<CollieUnderTest> {
  const collie = await Collie.create('--auth=noauth', '--journal-size-mib=128', ...flags)
  await collie.start()
  const transport = createSocketTransport({ network: systemNetwork, address: path.join(collie.dataDir, 'sock') })
  const vdis = new VdiClient(transport)
  const exportVid = async (vid: number) => {
    const name = randomUUID()
    await vdis.putExport({ attachmentId: randomUUID(), nameHash: hashExportName(name), vid, readOnly: false })
    return `nbd+unix:///${name}?socket=${collie.info.addresses.nbd_socket}`
  }
  return {
    vdis,
    exportVid,
    exportVdi: async (name, sizeBytes) => exportVid(await vdis.create(name, sizeBytes)),
    stop: async () => {
      transport.close()
      await collie.dispose()
    },
  }
}

/** Writes every byte of an export once, so that reads find blocks and not holes. */
export async function fill(uri: string): Promise<void> {
  await fio(uri, '--rw=write', '--bs=1m', '--iodepth=4')
}
