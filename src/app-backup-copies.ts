import path from 'node:path'
import { createConfiguredBackends } from './app-backends.ts'
import { openBackupTarget } from './app-backup-target.ts'
import type { Config } from './config.ts'
import { CONTROL_SOCKET } from './control/messages.ts'
import { SocketControl } from './control/socket-client.ts'
import { systemClock } from './runtime/clock.ts'
import { systemNetwork } from './runtime/network.ts'
import { createBackends } from './services/backends.ts'
import { type BackupCopies, createBackupCopies } from './services/backup/copies.ts'

/** Copies by connections of their own to the stores and to the target of the settings. They last as long as the thread. */
export async function openBackupCopies(config: Config): Promise<BackupCopies> {
  const control = new SocketControl(systemNetwork, path.resolve(config.data_dir, CONTROL_SOCKET))
  return createBackupCopies({
    backends: createBackends(createConfiguredBackends(config, control)),
    target: await openBackupTarget(config),
    clock: systemClock,
  })
}
