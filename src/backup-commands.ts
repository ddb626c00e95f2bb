import { type Command, EXIT } from './cli/command.ts'

/**
 * `collie backup …`: what lies on the target of backups, whether or not the database knows of it. What they do is loaded when one is
 * run: no other command needs a target.
 */
export function backupCommands(): Command[] {
  return [
    {
      name: 'backup list',
      usesSettings: true,
      summary: 'List the backups that lie on the target, and say which of them the database knows.',
      description:
        'Looks into the directory, S3 or Swift that the settings name (`backup.target`), as far as the manifests and the names of the\n' +
        'pages. With --json each has a `record` as `openstack volume backup record import` takes it.',
      run: async (call) => (await import('./backup-maintenance.ts')).listBackups(call),
    },
    {
      name: 'backup import',
      usesSettings: true,
      summary: 'Take backups over that lie on the target, with those that they are based on.',
      description:
        'For a cloud that has lost its database, or another one with the same target: afterwards they are restored as any other\n' +
        '(openstack volume backup restore). Each goes to the project that it was of, unless --project names another. It may be repeated,\n' +
        `and runs beside the API. Exits with ${EXIT.FOUND} when one of them could not be taken over, and says why.`,
      operands: [{ name: 'ID', meaning: 'Which of them.', repeated: true }],
      options: [
        { flag: 'all', meaning: 'All that lie there.' },
        { flag: 'of-project', value: 'PROJECT', meaning: 'Those that were of this project, by its id.' },
        { flag: 'project', value: 'PROJECT', meaning: 'The id of the project that they are of from now on.' },
      ],
      run: async (call) => (await import('./backup-maintenance.ts')).importFound(call),
    },
  ]
}
