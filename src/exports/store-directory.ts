import type { VdiClient } from '../vdi/client.ts'
import { readLimits } from '../vdi/export-limits.ts'
import { hashExportName } from '../vdi/export-name.ts'
import type { ExportDirectory } from './directory.ts'

/** The export rights in the store, asked at each connection: no gateway keeps a list that could be out of date. */
export function storeDirectory(vdis: VdiClient): ExportDirectory {
  return {
    lookup: async (name) => {
      const nameHash = hashExportName(name)
      const record = await vdis.findExport(nameHash)
      if (!record) return undefined
      const { attachmentId, readOnly, limits } = record
      const open = () => vdis.openExport(nameHash, readOnly)
      return { id: attachmentId, readOnly, limits: readLimits(limits), open }
    },
  }
}
