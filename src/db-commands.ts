import { type Command, type CommandPorts, EXIT } from './cli/command.ts'

/**
 * `collie db …`: commands that look at the service's database, beside the process that serves it. What they do is loaded when one
 * is run: no other command needs a database.
 */
export function dbCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'db backup',
      usesSettings: true,
      summary: 'Copy the database of the API into a new file, as it is at one moment, while it is used.',
      description:
        'SQLite: the file is a whole database; to bring it back, put it in the place of `collie.db` while nothing runs.\n' +
        'PostgreSQL: an archive of `pg_dump`, which has to be installed; `pg_restore` brings it back.\n' +
        'What volumes hold is not in it.',
      operands: [{ name: 'FILE', meaning: 'Where to put it; nothing may be there.' }],
      run: async (call) => (await import('./db-maintenance.ts')).backUp(call),
    },
    {
      name: 'db check',
      usesSettings: true,
      summary: 'Compare the database of the API with the store, and say what to do where they differ.',
      description:
        'Finds volumes, snapshots, rights of attachments and backups that only one of them has, sizes that differ, statuses that nothing\n' +
        'will end, and quotas that are charged wrong. It may run at any time: what is being worked on is left out. Exits with\n' +
        `${EXIT.DATA_UNSOUND} when something is wrong.`,
      options: [
        {
          flag: 'repair',
          meaning:
            'Set wrong charges right, and take back rights of attachments that do not exist; nothing else is touched.',
        },
      ],
      run: async (call) => (await import('./db-maintenance.ts')).check(ports, call),
    },
    {
      name: 'db adopt',
      usesSettings: true,
      summary: 'Let the store follow this database, when the one that it followed is lost for good.',
      description:
        'The API refuses to start with a database that is not the one by which the store was filled: each would take for free what the\n' +
        'other one uses. A backup is the same database, and needs no adoption. Stop the API before.',
      run: async (call) => (await import('./db-maintenance.ts')).adopt(ports, call),
    },
  ]
}
