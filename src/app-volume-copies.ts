import path from 'node:path'
import { createConfiguredBackends } from './app-backends.ts'
import { openBackupTarget } from './app-backup-target.ts'
import type { Config } from './config.ts'
import { CONTROL_SOCKET } from './control/messages.ts'
import { SocketControl } from './control/socket-client.ts'
import { systemClock } from './runtime/clock.ts'
import { systemNetwork } from './runtime/network.ts'
import { createBackends } from './services/backends.ts'
import type { BackupTarget } from './services/backup/target.ts'
import { createVolumeCopies, type VolumeCopies } from './services/volume-copies.ts'

/** Copies by connections of their own to the stores and to where backups go. They last as long as the thread. */
export function openVolumeCopies(config: Config): VolumeCopies {
  const control = new SocketControl(systemNetwork, path.resolve(config.data_dir, CONTROL_SOCKET))
  let opened: Promise<BackupTarget> | null = null
  const target = async () => {
    try {
      opened ??= openBackupTarget(config)
      return await opened
    } catch (error) {
      opened = null // the next step tries again
      throw error
    }
  }
  const backends = createBackends(createConfiguredBackends(config, control))
  return createVolumeCopies({ backends, target, clock: systemClock })
}
